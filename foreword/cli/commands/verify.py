"""`foreword verify`: checks every tensor of the given adapters against the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from foreword.cli.support import output
from foreword.cli.support.loaders import in_store
from foreword.cli.support.options import AsJson
from foreword.cli.support.shell_completion import adapter_names
from foreword.errors import AdapterError


def verify(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders of adapters, or adapters.", autocompletion=adapter_names)],
    json: AsJson = False,
) -> None:
    """Check the manifest, digest, header and values of adapters.

    Prints one sentence per problem. The exit code is 2 if there are any problems.

    [bold]Example:[/bold] foreword verify prompts
    """
    found = {where: problems for path in paths for where, problems in _checked(path)}
    bad = [problem for problems in found.values() for problem in problems]
    for problem in bad:
        output.fail(problem)
    if json:
        output.document({"adapters": [{"adapter": where, "problems": list(problems)} for where, problems in found.items()]})
    else:
        output.say(f"{output.count(len(found), 'adapter')} checked, {output.count(len(bad), 'problem')}.")
    if bad:
        raise typer.Exit(2)


def _checked(path: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Each adapter at or under a path with its problems."""
    from foreword.adapters.folder import FILES, read_whole
    from foreword.adapters.manifest import problems
    from foreword.adapters.store import AdapterStore

    try:
        if "://" not in path and any((Path(path) / name).is_file() for name in FILES):
            yield path, read_whole(path, problems)
            return
        if path.count("/") > 2 and "://" in path:
            store, name = in_store(path)
            if name in store.names():
                yield path, store.verify(name)
                return
        store = AdapterStore(path)
        names = store.names()
        yield from ((f"{store.url}/{name}", store.verify(name)) for name in names)
        if not names:
            yield path, [f"'{path}' holds no adapter; give an adapter's folder, or a folder of adapters."]
    except AdapterError as error:
        yield path, [str(error)]
