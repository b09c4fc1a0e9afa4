"""The catalogue of public logs: address, checksum with its publisher, reader, licence; and how to fetch one.

Sizes and checksums stand here only where somebody published them, with the place. Where nobody did, the first
download records its own (:func:`conseq.data.download.download`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from conseq.data import parsers
from conseq.data.download import Checksum, cache_folder, download, file_digest
from conseq.data.files import atomic_write
from conseq.data.locks import locked
from conseq.data.parsers import Parsed, Parser

TENSORFLOW = (
    "TensorFlow Datasets, https://github.com/tensorflow/datasets/blob/"
    "1c076ac3c19c8ea83e1d1a75e0623c9a699e0d7c/tensorflow_datasets/url_checksums/movielens.txt"
)
OMNIREC = "OmniRec, https://github.com/ISG-Siegen/OmniRec/blob/{}/src/omnirec/data_loaders/{}.py"
GROUPLENS = (
    "Research use; no redistribution and no commercial use without GroupLens' permission; cite Harper and "
    "Konstan, ACM TiiS 5(4), 2015"
)
MCAULEY = "Research use; cite the papers that the page names"
AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"


@dataclass(frozen=True)
class Source:
    """A public log.

    Attributes:
        name: What it is called on the command line.
        title: One line about it.
        page: Where its owners describe it and state their terms.
        licence: What its owners ask for, in short; the page decides.
        url: Where to download it; None where the owners' terms must be accepted by hand.
        file: The name of the downloaded file.
        parser: Reads the file.
        interactions: How many its page states, roughly what to expect; None where it varies.
        checksum: What was published for the file, and by whom.
        size: Its published size in bytes.
    """

    name: str
    title: str
    page: str
    licence: str
    url: str | None
    file: str
    parser: Parser
    interactions: int | None = None
    checksum: Checksum | None = None
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives the entry as plain JSON values, without its reader."""
        return {
            "name": self.name,
            "title": self.title,
            "page": self.page,
            "licence": self.licence,
            "url": self.url,
            "interactions": self.interactions,
            "checksum": None if self.checksum is None else asdict(self.checksum),
            "size": self.size,
        }


@dataclass(frozen=True)
class Fetched:
    """A log that is ready to be prepared.

    Attributes:
        name: The source's name.
        path: The Parquet file of ``user_id``, ``item_id``, ``timestamp``.
        archive: The file that it was read from.
        sha256: SHA-256 of the archive; None where it is a folder.
        verified_by: Who published the checksum that the archive has, or the record of the first download;
            None where there was neither.
        recorded_in: Where this first download recorded its checksum for later ones; None where it did not.
        written: SHA-256 of the Parquet file.
        parsed: Counts.
        licence: What the owners ask for.
    """

    name: str
    path: Path
    archive: Path
    sha256: str | None
    verified_by: str | None
    recorded_in: str | None
    written: str
    parsed: Parsed
    licence: str

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain JSON values."""
        values = asdict(self)
        return {**values, "path": str(self.path), "archive": str(self.archive)}


def _amazon(name: str, category: str, reviews: int, ratings: int, sha256: str) -> tuple[Source, Source]:
    """Gives the two logs of a category: the 5-core reviews that the papers use, and all ratings."""
    title = f"Amazon {category.replace('_', ' ')} until 2014"
    page = "https://jmcauley.ucsd.edu/data/amazon/index_2014.html"
    core = f"reviews_{category}_5.json.gz"
    everything = f"ratings_{category}.csv"
    published = OMNIREC.format("756e87946eba5e5825e6b3daf7cd02995b1f903d", "amazon2014")
    return (
        Source(
            name=f"amazon-{name}",
            title=f"{title}: reviews, 5-core",
            page=page,
            licence=MCAULEY,
            url=AMAZON + core,
            file=core,
            parser=partial(
                parsers.json_lines,
                members=(core.removesuffix(".gz"),),
                fields=("reviewerID", "asin", "unixReviewTime"),
            ),
            interactions=reviews,
        ),
        Source(
            name=f"amazon-{name}-ratings",
            title=f"{title}: all ratings, unfiltered",
            page=page,
            licence=MCAULEY,
            url=AMAZON + everything,
            file=everything,
            parser=partial(parsers.delimited, member=everything, separator=",", columns=(0, 1, 3)),
            interactions=ratings,
            checksum=Checksum(sha256, published),
        ),
    )


def _movielens(name: str, parser: Parser, interactions: int, size: int, sha256: str) -> Source:
    return Source(
        name=f"ml-{name}",
        title=f"MovieLens {name.upper()}: film ratings",
        page=f"https://grouplens.org/datasets/movielens/{name}/",
        licence=GROUPLENS,
        url=f"https://files.grouplens.org/datasets/movielens/ml-{name}.zip",
        file=f"ml-{name}.zip",
        parser=parser,
        interactions=interactions,
        checksum=Checksum(sha256, TENSORFLOW),
        size=size,
    )


_CATALOGUE = (
    *_amazon(
        "beauty",
        "Beauty",
        198_502,
        2_023_070,
        "17d5232b90444beecfe758ce1446e5300230491f3a88ac802992ca95fc4c150f",
    ),
    *_amazon(
        "sports",
        "Sports_and_Outdoors",
        296_337,
        3_268_695,
        "a31a27e2f0cd85b50acd002378cf1a23a0b3f2659484defb3225a836118252d4",
    ),
    *_amazon(
        "toys",
        "Toys_and_Games",
        167_597,
        2_252_771,
        "e28a342ca89a79036a9a840c0385a3a3342a08d3d3450ea3eaf3d544cd65d3af",
    ),
    *_amazon(
        "clothing",
        "Clothing_Shoes_and_Jewelry",
        278_677,
        5_748_920,
        "7bf571cb99abaebf380d2a231986e6df7b622ebd49b308e2506f1c0aab54b29a",
    ),
    *_amazon(
        "books",
        "Books",
        8_898_041,
        22_507_155,
        "87d923ddac2aacf40c1d0e0e056dbf4bf69c9c7d41852c6b434e781e759c0707",
    ),
    _movielens(
        "100k",
        partial(parsers.delimited, member="ml-100k/u.data", separator="\t", columns=(0, 1, 3)),
        100_000,
        4_924_029,
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    _movielens(
        "1m",
        partial(parsers.delimited, member="ml-1m/ratings.dat", separator="::", columns=(0, 1, 3)),
        1_000_209,
        5_917_549,
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    ),
    _movielens(
        "20m",
        partial(
            parsers.delimited,
            member="ml-20m/ratings.csv",
            separator=",",
            columns=(0, 1, 3),
            header="userId,movieId,rating,timestamp",
        ),
        20_000_263,
        198_702_078,
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    ),
    Source(
        name="yelp",
        title="Yelp Open Dataset: business reviews; the archive comes from you",
        page="https://business.yelp.com/data/resources/open-dataset/",
        licence="Yelp's dataset licence, which you accept on the page: academic use, no redistribution",
        url=None,
        file="Yelp-JSON.zip",
        parser=partial(
            parsers.json_lines,
            members=("yelp_academic_dataset_review.json", "review.json"),
            fields=("user_id", "business_id", "date"),
        ),
    ),
    Source(
        name="gowalla",
        title="Gowalla: check-ins of 2009 and 2010",
        page="https://snap.stanford.edu/data/loc-gowalla.html",
        licence="No licence is stated; cite Cho, Myers and Leskovec, KDD 2011",
        url="https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        file="loc-gowalla_totalCheckins.txt.gz",
        parser=partial(parsers.delimited, member="loc-gowalla_totalCheckins.txt", separator="\t", columns=(0, 4, 1)),
        interactions=6_442_890,
        checksum=Checksum(
            "c1c3e19effba649b6c89aeab3c1f9459fad88cfdc2b460fc70fd54e295d83ea0",
            OMNIREC.format("e498cceb6be13e3d287f0777355929645fc5871c", "gowalla"),
        ),
        # TrajDL, https://github.com/Spatial-Temporal-Data-Mining/TrajDL/blob/
        # 03e55d17b79ca3e225fc468d7095f4e528679962/src/trajdl/datasets/open_source/conf.py (same SHA-256).
        size=105_470_044,
    ),
    Source(
        name="steam",
        title="Steam: game reviews, 2010 to 2018",
        page="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        licence=MCAULEY,
        url="https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz",
        file="steam_reviews.json.gz",
        # The lines are Python dictionaries (u'...' strings), which no JSON reader takes.
        parser=partial(parsers.python_lines, member="steam_reviews.json", fields=("username", "product_id", "date")),
        interactions=7_793_069,
        checksum=Checksum(
            "40c6343deedf488689987749c5f8435233da48c163fbaa2a7766c215d584bc61",
            OMNIREC.format("dc55572bddc8c5fbd8d03a279a8957ecb5b166a2", "steam_reviews"),
        ),
    ),
)

SOURCES: Mapping[str, Source] = {source.name: source for source in _CATALOGUE}


def source(name: str) -> Source:
    """Gives the catalogue's entry of that name.

    Args:
        name: As ``conseq data list`` shows it.

    Returns:
        The entry.

    Raises:
        ValueError: if there is none; the message names the nearest.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(SOURCES)}"
        raise ValueError(f"no public log is called {name!r}; {hint}")
    return SOURCES[name]


def fetch(
    name: str, folder: Path | str | None = None, *, archive: Path | str | None = None, progress: bool = True
) -> Fetched:
    """Gives a public log as ``interactions.parquet``, after downloading, checking and reading it.

    What was fetched before and is unchanged is not fetched or read again.

    Args:
        name: As ``conseq data list`` shows it.
        folder: Where to keep the archive and the result; a folder of that name in the cache where None.
        archive: Your own copy of the archive, in place of a download.
        progress: Show a bar on standard error.

    Returns:
        Where it is, and what was found.

    Raises:
        ValueError: if the name is unknown, the log can only come from you, or the archive is not what was
            published.
        BlockingIOError: if another process is at work in the folder.
    """
    found = source(name)
    folder = cache_folder() / name if folder is None else Path(folder).expanduser()
    if found.url is None and archive is None:
        raise ValueError(
            f"{name} cannot be downloaded for you: accept its terms on {found.page}, download the archive there, "
            f"then run: conseq data fetch {name} --archive FILE"
        )
    with locked(folder):
        return _fetched(found, folder, archive, progress=progress)


def _fetched(found: Source, folder: Path, archive: Path | str | None, *, progress: bool) -> Fetched:
    recorded_in = None
    if archive is not None:
        place = Path(archive).expanduser()
        sha256, verified_by = _own(found, place)
    else:
        assert found.url is not None, "told before the folder is made"
        done = download(found.url, folder / found.file, checksum=found.checksum, size=found.size, progress=progress)
        place, sha256 = done.path, done.sha256
        verified_by = done.verified.source if done.verified else None
        recorded_in = None if done.verified else f"{place}.sha256"
    path, record = folder / "interactions.parquet", folder / "source.json"
    parsed = _read_before(record, path, found.name, sha256)
    if parsed is None:
        parsed = parsers.write_interactions(found.parser, place, path)
    written = file_digest(path)
    fetched = Fetched(found.name, path, place, sha256, verified_by, recorded_in, written, parsed, found.licence)
    atomic_write(record, json.dumps({**fetched.to_json(), "url": found.url, "page": found.page}, indent=2) + "\n")
    return fetched


def _own(found: Source, archive: Path) -> tuple[str | None, str | None]:
    """Gives the SHA-256 of the user's own archive and who published the same."""
    if not archive.exists():
        raise FileNotFoundError(f"no such file: {archive}")
    if archive.is_dir():
        return None, None
    sha256 = file_digest(archive)
    if found.checksum is None:
        return sha256, None
    if sha256 != found.checksum.digest:
        raise ValueError(
            f"{archive} has sha256 {sha256}, expected {found.checksum.digest} (from {found.checksum.source})"
        )
    return sha256, found.checksum.source


def _read_before(record: Path, path: Path, name: str, sha256: str | None) -> Parsed | None:
    """Gives the counts of an earlier reading of the same archive, where its result is still there as it was written."""
    if sha256 is None or not (record.exists() and path.exists()):
        return None
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        same = (before["name"], before["sha256"], before["written"]) == (name, sha256, file_digest(path))
        return Parsed(**before["parsed"]) if same else None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
