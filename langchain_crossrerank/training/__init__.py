"""Fine-tuning of a reranker on your own queries: mined negatives, exact resume, validation, export without torch."""

from langchain_crossrerank.training.data import TrainingData, TrainingExample, read_training_data
from langchain_crossrerank.training.fine_tuning import TrainingResult, train
from langchain_crossrerank.training.settings import TrainingSettings

__all__ = ["TrainingData", "TrainingExample", "TrainingResult", "TrainingSettings", "read_training_data", "train"]
