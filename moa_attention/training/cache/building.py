"""Filling the cache: every process makes the shards of its part, in threads and batches, and meets the others at the end.

A killed run resumes at the shard that it was computing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from ..data.encoders import Encoders
from ..data.pictures import BadPicture, PictureFolder, TrainingPicture
from .encoding import EncodedPicture, encode_chunk
from .entries import CachedPictures, CacheSettings
from .manifest import ShardRecord, intact_record, read_manifest, record_of, write_manifest
from .preparing import in_threads, prepare_picture
from .shards import read_shard, remove_others, shard_key, shards, write_shard
from .sharing import CacheShare

Progress = Callable[[int, int], None]
"""`(done, all)`, in pictures of all processes."""
Shards = Mapping[Path, Sequence[TrainingPicture]]


def build_cache(
    reading: PictureFolder,
    encoders: Encoders,
    settings: CacheSettings,
    folder: Path,
    progress: Progress,
    threads: int = 0,
    share: CacheShare | None = None,
) -> CachedPictures:
    """Compute the missing shards and list all entries. Pictures that cannot be used are dropped, with the reason.

    Neither `threads` nor `share` changes a bit of the cache.

    Args:
        progress: called first with the pictures that are cached already.
        threads: that read and augment pictures beside the encoding; 0 for none.
        share: this process's part; by default all.
    Raises: ValueError when no picture is left, LostProcess when another process ended, OSError when the disk is full.
    """
    share = share or CacheShare()
    folder.mkdir(parents=True, exist_ok=True)
    reading.check_any()
    needed = {folder / f"{shard_key(m, encoders, settings)}.safetensors": m for m in shards(reading.pictures)}
    made = fill_part(needed, encoders, settings, progress, threads, share)
    if share.rank == 0:
        write_manifest(folder, made, encoders.fingerprint, settings)
        remove_others(folder, needed)
    content = replace(reading, dropped=list(reading.dropped), warnings=list(reading.warnings))
    cached = CachedPictures([], content)
    for path, members in needed.items():
        read_shard(path, members, cached)
    if not cached.entries:
        raise ValueError(f"Nothing to train on. {cached.report()}")
    return cached


def fill_part(
    needed: Shards, encoders: Encoders, settings: CacheSettings, progress: Progress, threads: int, share: CacheShare
) -> dict[str, ShardRecord]:
    """Make this process's shards and wait for the others. Returns: the records of all shards."""
    own = {path: members for number, (path, members) in enumerate(needed.items()) if share.owns(number)}
    folder, total = next(iter(needed)).parent, sum(map(len, needed.values()))
    try:
        known = read_manifest(folder)
        found = {path: intact_record(path, len(members), known.get(path.name)) for path, members in own.items()}
        records = {path.name: record for path, record in found.items() if record is not None}
        missing = {path: members for path, members in own.items() if path.name not in records}
        done = sum(record.pictures for record in records.values())

        def advance(pictures: int) -> None:
            nonlocal done
            done += pictures
            share.report(folder, done)
            progress(done + share.others_done(folder), total)

        advance(0)
        for path, encoded in encoded_shards(missing, encoders, settings, threads, advance):
            write_shard(path, encoded)
            records[path.name] = record_of(path, len(encoded))
    except BaseException as error:
        share.report(folder, 0, failed=str(error) if isinstance(error, Exception) else "it was stopped.")
        raise
    share.report(folder, done, shards={name: asdict(record) for name, record in records.items()})
    return records | share.wait(folder, lambda others: progress(done + others, total))


def encoded_shards(
    missing: Shards, encoders: Encoders, settings: CacheSettings, threads: int, advance: Callable[[int], None]
) -> Iterator[tuple[Path, list[EncodedPicture | BadPicture]]]:
    """The content of each of these shards. Threads prepare pictures of the next shard while one is encoded."""
    side, scale, batch = encoders.side, encoders.scale, encoders.batch
    part = len(encoders.text("", []).context)
    pictures = [picture for members in missing.values() for picture in members]
    with closing(in_threads(lambda p: prepare_picture(p, settings, side, scale), pictures, threads)) as prepared:
        for path, members in missing.items():
            encoded: list[EncodedPicture | BadPicture] = []
            while len(encoded) < len(members):
                chunk = list(islice(prepared, min(batch, len(members) - len(encoded))))
                encoded += encode_chunk(chunk, encoders, settings, part)
                advance(len(chunk))
            yield path, encoded
