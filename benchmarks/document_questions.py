"""Questions to the documents of `documents.py`, with patterns by which the right passage and answer are known.

They were written from the documents before anything was tuned on them. A passage or an answer is right if it matches
the pattern, after white space is collapsed and markup is taken off.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["prose", "list", "table", "code"]


class Question(NamedTuple):
    """A question, the document that answers it, its kind, and the pattern of what is right."""

    document: str
    kind: Kind
    text: str
    pattern: str


QUESTIONS = (
    Question("R-FAQ.pdf", "prose", "Who wrote R at first?", r"initially written by Ross Ihaka and Robert Gentleman"),
    Question(
        "R-FAQ.pdf",
        "prose",
        "Which two existing languages influenced the design of R?",
        r"heavily influenced by two existing languages",
    ),
    Question("R-FAQ.pdf", "prose", "What is CRAN?", r"collection of sites which carry identical material"),
    Question("R-FAQ.pdf", "prose", "Can R be used in a business?", r"can use R for commercial purposes"),
    Question(
        "R-FAQ.pdf",
        "prose",
        "Which compilers are needed to build R from source?",
        r"need a FORTRAN 90 compiler as well as a C compiler",
    ),
    Question(
        "R-FAQ.pdf",
        "list",
        "Which mailing list is about code development in R?",
        r"R-devel\W+This list is for questions and discussion about code",
    ),
    Question(
        "R-FAQ.pdf",
        "list",
        "Which manual describes how to create add-on packages?",
        r"Writing R Extensions.{0,20}\(R-exts\)",
    ),
    Question("R-FAQ.pdf", "code", "How do I install R on Debian with apt-get?", r"apt-get install r-base"),
    Question("R-FAQ.pdf", "code", "How do I build R from source at the shell prompt?", r"\./configure"),
    Question(
        "R-data.pdf",
        "prose",
        "What represents missing values in a file by default?",
        r"character string NA to represent missing",
    ),
    Question(
        "R-data.pdf", "prose", "How can trailing empty fields that were left out of lines be read?", r"set fill = TRUE"
    ),
    Question(
        "R-data.pdf", "prose", "Which function reads fixed-width-format files?", r"read\.fwf provides a simple way"
    ),
    Question(
        "R-data.pdf", "prose", "Which character starts a comment in read.table?", r"uses .#. as a comment character"
    ),
    Question(
        "R-data.pdf", "prose", "How are files read that were compressed by bzip2?", r"bzip2 can be used via bzfile"
    ),
    Question("R-data.pdf", "list", "How do I keep blank lines when reading a file?", r"blank\.lines\.skip = FALSE"),
    Question("R-data.pdf", "list", "How do I strip white space in character fields?", r"strip\.white = TRUE"),
    Question("R-data.pdf", "code", "How do I read a Latin-1 file in a UTF-8 locale?", r"fileEncoding ?= ?.latin1"),
    Question("debian-faq.pdf", "prose", "How is Debian pronounced?", r"Deb.{1,3}ee-en"),
    Question(
        "debian-faq.pdf", "prose", "From whose names does the word Debian come?", r"names of Debra and Ian Murdock"
    ),
    Question(
        "debian-faq.pdf",
        "prose",
        "Which package converts between different package formats?",
        r"Alien.{0,60}is used to convert between different",
    ),
    Question(
        "debian-faq.pdf",
        "list",
        "Which Toy Story character was woody in Debian 3.0?",
        r"woody \(Debian 3\.0\) was the cowboy",
    ),
    Question(
        "debian-faq.pdf",
        "list",
        "After which toy was the release etch named?",
        r"etch \(Debian 4\.0\) was the toy whiteboard",
    ),
    Question("debian-faq.pdf", "list", "Which runlevel reboots the system?", r"6 \(reboot the system\)"),
    Question(
        "debian-faq.pdf",
        "list",
        "Which Debian distribution should a new user install on a desktop machine?",
        r"new user installing to a desktop machine, start with stable",
    ),
    Question("debian-faq.pdf", "code", "How do I put a package on hold with apt?", r"apt-mark hold"),
    Question("debian-faq.pdf", "code", "How do I list all files of an installed package?", r"dpkg --listfiles"),
    Question("debian-faq.pdf", "code", "How do I download a source package?", r"apt-get source"),
    Question(
        "debian-faq.pdf",
        "code",
        "Which command finds the package that produced a file?",
        r"dpkg --search|apt-file search|dlocate -S",
    ),
    Question(
        "refcard-a4.pdf",
        "list",
        "Which key kills to the end of the line in Octave?",
        r"C-k kill to the end of the line",
    ),
    Question(
        "refcard-a4.pdf",
        "list",
        "Which key yanks the most recently killed text?",
        r"C-y yank the most recently killed text",
    ),
    Question("refcard-a4.pdf", "list", "How do I clear the screen while editing a command line?", r"C-l clear screen"),
    Question(
        "refcard-a4.pdf",
        "list",
        "Which Octave command removes singleton dimensions of an array?",
        r"squeeze \(arr\) remove singleton",
    ),
    Question(
        "refcard-a4.pdf", "list", "Which Octave function compares two strings?", r"strcmp \(s, t\) compare strings"
    ),
    Question(
        "refcard-a4.pdf", "list", "How do I enter a column vector?", r"\[ ?x; y; \.\.\. ?\] enter a column vector"
    ),
    Question(
        "python-general.html", "prose", "Who holds the copyright on Python?", r"holds the copyright on Python versions"
    ),
    Question("python-general.html", "prose", "When did work on Python begin?", r"During the 1989 Christmas holidays"),
    Question(
        "python-general.html",
        "prose",
        "Is it OK to sell copies of Python?",
        r"OK to use Python for commercial use, to sell copies",
    ),
    Question(
        "python-design.rst",
        "prose",
        "Why are strings immutable in Python?",
        r"knowing that a string is immutable means",
    ),
    Question(
        "python-design.rst",
        "prose",
        "How are lists implemented in CPython?",
        r"lists are really variable-length arrays",
    ),
    Question("python-design.rst", "prose", "How are dictionaries implemented?", r"resizable hash tables"),
    Question("python-library.rst", "prose", "Which module copies files?", r"shutil.{0,10} module contains a"),
    Question(
        "python-library.rst",
        "prose",
        "Which standard module sends mail?",
        r"standard library module \W*(?:mod:)?\W*smtplib",
    ),
    Question("python-library.rst", "code", "How do I make a script file executable?", r"chmod \+x scriptfile"),
    Question(
        "python-library.rst",
        "code",
        "How do I connect to an SMTP server on this machine?",
        r"smtplib\.SMTP\(.localhost",
    ),
    Question("examples.md", "code", "How do I make an attribute of an attrs class keyword-only?", r"kw_only=True"),
    Question("examples.md", "code", "How do I turn an attrs instance into a dictionary?", r"asdict"),
    Question("examples.md", "code", "How do I convert an attribute of an attrs class to int?", r"converter=int"),
    Question("ls.1", "list", "Which option of ls groups directories before files?", r"--group-directories-first"),
    Question(
        "ls.1",
        "list",
        "How does ls show entries that start with a dot?",
        r"-a, --all|do not ignore entries starting with",
    ),
    Question("dd.1", "list", "Which operand of dd copies only some input blocks?", r"count=N"),
    Question("sort.1", "list", "Which option sorts human readable numbers such as 2K?", r"--human-numeric-sort"),
    Question(
        "python-time.rst", "table", "Which strftime directive is the day of the year?", r"%j.{0,30}Day of the year"
    ),
    Question(
        "python-time.rst",
        "table",
        "What does %p stand for in strftime?",
        r"%p.{0,30}Locale.s equivalent of either AM or PM",
    ),
    Question(
        "python-time.rst", "table", "Which directive is the locale's full month name?", r"%B.{0,30}full month name"
    ),
    Question("python-time.rst", "table", "What range does tm_wday have?", r"tm_wday.{0,40}Monday is 0"),
    Question(
        "python-time.rst", "table", "Which function turns struct_time in UTC into seconds since the epoch?", r"timegm"
    ),
    Question("python-time.rst", "table", "Which directive is the hour on a 12-hour clock?", r"%I.{0,30}Hour \(12-hour"),
    Question(
        "python-struct.rst",
        "table",
        "Which struct format character is an unsigned short?",
        r"\bH\W.{0,40}unsigned short",
    ),
    Question("python-struct.rst", "table", "Which struct format character is a C double?", r"\bd\W.{0,30}double"),
    Question(
        "python-struct.rst",
        "table",
        "Which character means little-endian byte order in struct?",
        r"<.{0,25}little-endian",
    ),
)

UNANSWERABLE = (
    "What is the capital of Mongolia?",
    "How long should an egg be boiled?",
    "Who won the football world cup in 1974?",
    "What does a ticket for the ferry to Gotland cost?",
    "Which vitamin is in carrots?",
)
"""Questions that none of the documents answers."""
