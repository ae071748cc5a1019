"""The user's functions: found in the model's `code/`, checked at load, bound so that all are called alike.

A hook is called with the arguments that `HOOKS` lists and the context after them; one that does not take the context
never sees it. An `async def` hook is run to its end in the thread that calls it.
"""

import ast
import asyncio
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from hfserve.errors import HookError

DEFAULT_PROGRAM = "inference.py"
HOOKS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("body", "content_type"),
    "predict_fn": ("data", "model"),
    "predict_batch_fn": ("items", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "body", "content_type", "accept"),
    "bidi_fn": ("frames", "model"),
}
REPLACED_BY_TRANSFORM = ("input_fn", "predict_fn", "predict_batch_fn", "output_fn")
HANDLE = ("data",)
CONTEXT_NAMES = ("context", "ctx")
DISTRIBUTIONS = {
    "PIL": "pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "sklearn": "scikit-learn",
    "skimage": "scikit-image", "yaml": "pyyaml",
}  # fmt: skip
"""Where a package is installed under another name than it is imported."""

Hook = Callable[..., Any]

_code_dirs: list[Path] = []
"""Where this process has imported hooks from, so that they can be told from other modules."""


@dataclass(frozen=True)
class Hooks:
    """The user's functions, None where there is none; the caller passes the context as the last argument, always.

    Where there is a `predict_batch_fn`, it is what runs and `predict_fn` is not called.
    """

    path: Path | None = None
    model_fn: Hook | None = None
    input_fn: Hook | None = None
    predict_fn: Hook | None = None
    predict_batch_fn: Hook | None = None
    output_fn: Hook | None = None
    transform_fn: Hook | None = None
    bidi_fn: Hook | None = None
    pre_model_fn: Hook | None = None
    model_warmup_fn: Hook | None = None
    handle: Hook | None = None

    @property
    def any(self) -> bool:
        """Whether there is a hook at all."""
        return any(getattr(self, field.name) for field in fields(self) if field.name != "path")


def find(code_dir: Path | None, program: str, handler: str | None) -> Hooks:
    """The hooks, imported and checked; raises HookError with the first mistake."""
    hooks, mistakes = _read(code_dir, program, handler)
    if mistakes:
        raise HookError(mistakes[0])
    return hooks


def problems(code_dir: Path | None, program: str, handler: str | None) -> list[str]:
    """Every mistake in the user's code, a sentence each."""
    return _read(code_dir, program, handler)[1]


def where(error: BaseException) -> str:
    """` (code/inference.py:12)`, the innermost line of the user's that an error came through; "" when there is none."""
    place = _place(error)
    return f" ({place})" if place else ""


def _read(code_dir: Path | None, program: str, handler: str | None) -> tuple[Hooks, list[str]]:
    code_dir = code_dir.absolute() if code_dir and code_dir.is_dir() else None
    try:
        if handler:
            return _service(code_dir, handler)
        path = _program(code_dir, program) if code_dir else None
        return _hooks(_Source.imported(code_dir, path)) if code_dir and path else (Hooks(), [])
    except HookError as error:
        return Hooks(), [str(error)]


# Find


def _program(code_dir: Path, program: str) -> Path | None:
    """The file of the hooks, None when there are none; not to find it beside other code is a mistake."""
    asked = Path(program)
    if asked.suffix != ".py" or asked.is_absolute() or ".." in asked.parts:
        raise HookError(f"SAGEMAKER_PROGRAM={program} should name a .py file inside {code_dir.name}/")
    if (code_dir / asked).is_file():
        return code_dir / asked
    others = sorted(code_dir.glob("*.py"))
    if others and program != DEFAULT_PROGRAM:
        there = ", ".join(other.name for other in others)
        raise HookError(
            f"SAGEMAKER_PROGRAM={program} names a file that {code_dir.name}/ does not hold; it holds {there}"
        )
    for other in others:
        if found := _hook_in(other):
            raise HookError(
                f"{code_dir.name}/ holds no {program}, yet {_shown(code_dir, other)} defines {found}; "
                f"rename it or set SAGEMAKER_PROGRAM={other.name}"
            )
    return None


def _hook_in(path: Path) -> str | None:
    try:
        names = _lines(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError):
        return None
    return next((name for name in names if name in HOOKS), None)


def _service(code_dir: Path | None, handler: str) -> tuple[Hooks, list[str]]:
    """A custom service of Multi Model Server's: `module`, `module:function` or `module.py:function`."""
    place, _, function = handler.partition(":")
    place, function = place.removesuffix(".py"), function or "handle"
    path = Path(code_dir or "", f"{place.replace('.', '/')}.py")
    if code_dir and path.is_relative_to(code_dir) and path.is_file():
        source = _Source.imported(code_dir, path)
    else:
        source = _Source.installed(code_dir, place.rpartition("/")[2], handler)
    found = getattr(source.module, function, None)
    if found is None and function == "handle":
        found = _handle_of_class(source.module)
    if found is None:
        close = _instead(function, [name for name, value in vars(source.module).items() if callable(value)])
        return Hooks(), [f"SAGEMAKER_HANDLER={handler}: {source.shown} has no {function}{close}"]
    bound, mistake = _bound(source, function, found, HANDLE)
    return Hooks(source.path, handle=bound), [mistake] if mistake else []


def _handle_of_class(module: ModuleType) -> Callable[..., Any] | None:
    """What Multi Model Server makes of a module without `handle` and with one class that has it."""
    own = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    kinds = [each for each in own if callable(getattr(each, "handle", None))]
    if len(kinds) != 1:
        return None
    service: Any = kinds[0]()

    def handle(data: Any, context: Any) -> Any:
        return service.initialize(context) if data is None else service.handle(data, context)

    return handle


# Import


@dataclass(frozen=True)
class _Source:
    """A module of the user's, with what is needed to speak of it."""

    module: ModuleType
    path: Path
    shown: str
    tree: ast.Module
    lines: dict[str, int]

    @classmethod
    def imported(cls, code_dir: Path, path: Path) -> "_Source":
        """The module of a file, imported anew under the file's own name."""
        name = ".".join(part.replace(".", "_") for part in path.relative_to(code_dir).with_suffix("").parts)
        if _is_taken(name):
            raise HookError(f"{_shown(code_dir, path)} has the name of another module, {name}; rename it")
        _put_first(code_dir)
        try:
            module = _execute(name, path)
            tree = ast.parse(path.read_bytes())
            return cls(module, path, _shown(code_dir, path), tree, _lines(tree))
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise HookError(_import_mistake(error, code_dir, _shown(code_dir, path))) from error

    @classmethod
    def installed(cls, code_dir: Path | None, name: str, handler: str) -> "_Source":
        """A module that is on the path by itself."""
        if code_dir:
            _put_first(code_dir)
        try:
            module = importlib.import_module(name)
            return cls(module, Path(module.__file__ or ""), name, ast.Module([], []), {})
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise HookError(f"SAGEMAKER_HANDLER={handler}: no module {name} is in code/ or installed") from error
            raise HookError(_import_mistake(error, code_dir or Path("code"), f"SAGEMAKER_HANDLER={handler}")) from error

    def at(self, name: str) -> str:
        """`code/inference.py:12`, where a name is defined."""
        line = self.lines.get(name)
        return f"{self.shown}:{line}" if line else self.shown


def _is_taken(name: str) -> bool:
    """Whether importing under this name would take the place of a module that is not the user's."""
    there = sys.modules.get(name)
    file = Path(getattr(there, "__file__", None) or "")
    return name in sys.stdlib_module_names or bool(there and not any(file.is_relative_to(d) for d in _code_dirs))


def _put_first(code_dir: Path) -> None:
    if code_dir not in _code_dirs:
        _code_dirs.append(code_dir)
    if str(code_dir) in sys.path:
        sys.path.remove(str(code_dir))
    sys.path.insert(0, str(code_dir))
    importlib.invalidate_caches()


def _execute(name: str, path: Path) -> ModuleType:
    """Import a file, whatever its name; it stays in `sys.modules`, where pickle and its neighbours look for it."""
    parent = name.rpartition(".")[0]
    if parent:
        importlib.import_module(parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _place(error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for code_dir in _code_dirs:
            if Path(frame.filename).is_relative_to(code_dir):
                return f"{_shown(code_dir, Path(frame.filename))}:{frame.lineno}"
    return ""


def _import_mistake(error: BaseException, code_dir: Path, shown: str) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        file = Path(error.filename or shown)
        text = f": {error.text.strip()}" if error.text else ""
        return f"{_shown(code_dir, file)}:{error.lineno}: {error.msg}{text}"
    place = _place(error) or shown
    if isinstance(error, SystemExit):
        return f'{place}: it ends the process on import; put that under `if __name__ == "__main__":`'
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        wanted = DISTRIBUTIONS.get(package, package)
        remedy = f"name {wanted} in {code_dir.name}/requirements.txt, or add {package}.py when it is your own"
        return f"{place}: the package {package} is not installed; {remedy}"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return f"{place}: {code_dir.name}/ is not a package; import its files by their names, without a leading dot"
    return f"{place}: {type(error).__name__} on import: {str(error).partition(chr(10))[0]}"


def _shown(code_dir: Path, path: Path) -> str:
    return f"{code_dir.name}/{path.relative_to(code_dir).as_posix()}" if path.is_relative_to(code_dir) else str(path)


def _lines(tree: ast.Module) -> dict[str, int]:
    """The line where each of the module's own names is bound last."""
    found = {}
    for node in _own(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node.lineno
        elif isinstance(node, ast.alias):
            found[node.asname or node.name] = node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = node.lineno
    return found


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What lies below a node, but not in functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own(child)


# Check


def _hooks(source: _Source) -> tuple[Hooks, list[str]]:
    defined = {name: getattr(source.module, name) for name in HOOKS if hasattr(source.module, name)}
    if not defined:
        return Hooks(source.path), [_nothing_defined(source)]
    mistakes = _misspelt(source)
    bound = {}
    for name, function in defined.items():
        bound[name], mistake = _bound(source, name, function, HOOKS[name])
        mistakes += [mistake] if mistake else []
    if inspect.iscoroutinefunction(defined.get("bidi_fn")):
        mistakes.append(f"{source.at('bidi_fn')}: bidi_fn should yield its answers, one after the other")
    replaced = [f"{name} ({source.at(name)})" for name in REPLACED_BY_TRANSFORM if name in defined]
    if "transform_fn" in defined and replaced:
        mistakes.append(
            f"{source.at('transform_fn')}: transform_fn does the work of {', '.join(replaced)}; keep it or them"
        )
    return Hooks(source.path, **bound), mistakes


def _nothing_defined(source: _Source) -> str:
    sentence = f"{source.shown} defines none of {', '.join(HOOKS)}"
    own = [node.name for node in source.tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    meant = {name: close[0] for name in own if (close := get_close_matches(name, HOOKS, 1))}
    if meant:
        renames = [f"{name} (line {source.lines[name]}) to {hook}" for name, hook in meant.items()]
        return f"{sentence}; rename {', '.join(renames)}"
    if "handle" in own:
        return f"{sentence}; set SAGEMAKER_HANDLER={source.module.__name__} to serve with its handle(data, context)"
    return sentence


def _misspelt(source: _Source) -> list[str]:
    """Functions that nothing in the file uses and whose names are nearly a hook's."""
    used = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return [
        f"{source.at(node.name)}: {node.name} is no hook{close}"
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name not in used.union(HOOKS)
        and node.name.endswith("_fn")
        and not node.name.startswith("_")
        and (close := _instead(node.name, list(HOOKS), 0.85))
    ]


def _instead(name: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    close = get_close_matches(name, known, 1, cutoff)
    return f"; did you mean {close[0]}?" if close else ""


# Bind


def _bound(source: _Source, name: str, function: Any, takes: tuple[str, ...]) -> tuple[Hook | None, str | None]:
    """The function as callers use it, or the mistake in it."""
    if not callable(function):
        return None, f"{source.at(name)}: {name} should be a function, not {type(function).__name__}"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C: it does not tell what it takes
        return _finishing(lambda *args: function(*args[:-1])), None
    if not _can_take(parameters, len(takes)):
        written = ", ".join(str(p.replace(default=p.empty, annotation=p.empty)) for p in parameters)
        rule = "take (data, context)" if takes is HANDLE else f"take ({', '.join(takes)}) and may add context"
        return None, f"{source.at(name)}: {name}({written}) should {rule}"
    context = _context(parameters, len(takes))
    if context is None:
        return _finishing(lambda *args: function(*args[:-1])), None
    if context in _positional(parameters)[: len(takes) + 1]:
        return _finishing(function), None
    return _finishing(lambda *args: function(*args[:-1], **{context.name: args[-1]})), None


def _can_take(parameters: Sequence[inspect.Parameter], count: int) -> bool:
    """Whether a function can be called with `count` arguments, or with these and the context."""
    enough = len(_positional(parameters)) >= count or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    missing = [p for p in _extra(parameters, count) if p.default is p.empty]
    return enough and missing in ([], [_context(parameters, count)])


def _context(parameters: Sequence[inspect.Parameter], count: int) -> inspect.Parameter | None:
    """The parameter that gets the context: the one of that name, else one more that must be given by position."""
    extra = _extra(parameters, count)
    named = [p for p in extra if p.name in CONTEXT_NAMES]
    required = [p for p in extra if p.default is p.empty and p.kind is not p.KEYWORD_ONLY]
    return next(iter(named + required), None)


def _extra(parameters: Sequence[inspect.Parameter], count: int) -> list[inspect.Parameter]:
    """The parameters beyond the first `count`, stars apart."""
    first = _positional(parameters)[:count]
    return [p for p in parameters if p not in first and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _positional(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _finishing(function: Hook) -> Hook:
    """The function, whose coroutine, when it returns one, is run to its end."""

    def call(*args: Any) -> Any:
        result = function(*args)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    return call
