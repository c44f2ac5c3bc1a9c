"""Reads the official CIFAR pickles without running anything that a pickle asks for.

A pickle is a program. This reader lets it name five globals and gives it stand-ins
for them: plain records of an array's type, shape and bytes. NumPy's own
unpickling never runs; the array is built afterwards from the checked record.
"""

import pickle
from typing import IO, Any, ClassVar

import numpy as np

from deepmaker_jax.errors import InputError

MOST_BYTES = 400 << 20  # unpacked, the official archives hold 186 MB; more is no CIFAR


# Stand-ins are classes whose instances take any state, so that a pickle's BUILD has
# nothing else to write to: on the class itself it fails.
class _Type:
    """Stands for `numpy.dtype(code, align, copy)`; its state is ignored."""

    def __init__(self, code: Any, *_: Any):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for `ndarray`, and for what `_reconstruct` makes; BUILD sets its state."""

    state: Any = None

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Encode:
    """Stands for `_codecs.encode`: how Python 3 writes bytes into protocol 2.

    Called again and again with one text it would fill the memory: it gives no more
    than an official file holds.
    """

    def __init__(self):
        self._left = MOST_BYTES

    def __call__(self, text: Any, encoding: Any = None) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("_codecs.encode of something other than latin1 text")
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError(f"more than {MOST_BYTES >> 20} MiB")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise TypeError("_codecs.encode has no state")


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}
# What stands in no official file: sets, and other ways to make objects.
_ABSENT = b"".join((
    pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.OBJ, pickle.INST, pickle.NEWOBJ,
    pickle.NEWOBJ_EX, pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4,
))  # fmt: skip


class _Bounded:
    """A file of which no more is asked for than it can hold: room is made before it is read."""

    def __init__(self, file: IO[bytes], size: int):
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        if size > self._size:
            raise EOFError("it ends before what it announces")
        return self._file.read(size)


_InPython: Any = pickle._Unpickler  # of which typeshed knows too little


class _Unpickler(_InPython):
    """Python's own unpickler in Python: its memo is a dictionary.

    The one in C allocates an array as long as the largest memo index, so that one
    wrong byte in a file can ask for 64 GB. Keys are text alone: a tuple that holds one
    tuple twice, sixty times over, takes a few hundred bytes and is hashed for ever.
    """

    dispatch: ClassVar = {op: do for op, do in _InPython.dispatch.items() if op not in _ABSENT}

    def __init__(self, file: IO[bytes], where: str, size: int):
        super().__init__(_Bounded(file, size), encoding="bytes")  # Python 2's str stays bytes
        self._where, self._encode = where, _Encode()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise InputError(
                f"{self._where} asks for the global {module}.{name}, which no official file "
                "does: it may be harmful; get the official archive again"
            ) from None

    def _set_item(self) -> None:
        self._check_keys(self.stack[-2:-1])
        self.load_setitem()

    def _set_items(self) -> None:
        self._check_keys(self.stack[::2])  # since the mark
        self.load_setitems()

    def _make_dict(self) -> None:
        self._check_keys(self.stack[::2])
        self.load_dict()

    def _check_keys(self, keys: list[Any]) -> None:
        if not all(isinstance(key, bytes | str) for key in keys):
            raise pickle.UnpicklingError("a key that is no text")

    dispatch |= {
        pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items, pickle.DICT[0]: _make_dict,
    }  # fmt: skip


def load_pickle(file: IO[bytes], *, where: str, size: int) -> dict[str, Any]:
    """Reads one pickled dictionary of the CIFAR "Python version".

    Args:
      file: a buffered binary stream.
      where: the file's name, for messages.
      size: bytes that it has at most.

    Returns:
      The dictionary, its keys as text. Values are what the pickle held: ints,
      bytes, text, lists, and arrays for `matrix`.

    Raises:
      InputError: it is no such pickle, is cut short, or asks for any global but
        the few that the official files use.
    """
    try:
        content = _Unpickler(file, where, min(size, MOST_BYTES)).load()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle may raise anything
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        raise InputError(
            f"{where} is damaged or no CIFAR pickle ({reason}): get the official archive again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{where} holds a {type(content).__name__}, not the dictionary of a CIFAR file: "
            "get the official archive again"
        )
    return {_text(key): value for key, value in content.items()}


def matrix(value: Any, *, columns: int, where: str) -> np.ndarray:
    """Builds UInt8[rows, columns] from an unpickled array's record, without a copy.

    Raises:
      InputError: the record is of another type or shape, or its bytes don't fit.
    """
    state = value.state if isinstance(value, _Array) else None
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, data = state
        if (
            isinstance(kind, _Type)
            and _text(kind.code) in ("u1", "|u1", "uint8")
            and isinstance(shape, tuple)
            and len(shape) == 2
            and all(type(size) is int and size > 0 for size in shape)
            and shape[1] == columns
            and not fortran
            and isinstance(data, bytes | bytearray)
            and len(data) == shape[0] * shape[1]
        ):
            return np.frombuffer(data, np.uint8).reshape(shape)
    raise InputError(
        f"{where}: 'data' is not a uint8 array [images, {columns}]: get the official archive again"
    )


def _text(value: Any) -> str:
    """Returns text for text or bytes, and something that fits nothing for all else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else repr(type(value))
