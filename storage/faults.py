"""Errors of a store or a corpus, in one line that names the trouble and helps.

Libraries word them in many ways, and often as `None`.  No line has a credential in it.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from raee.errors import InputError

_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"

_OF_THE_USER = {
    "NoSuchBucket": "there is no such bucket; make it, or correct the address",
    "InvalidBucketName": "that is no bucket's name; correct the address",
    "InvalidAccessKeyId": "the server does not know the access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the access key; check "
    "AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired; get a new one",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "AuthorizationHeaderMalformed": "the region is wrong; check AWS_DEFAULT_REGION",
    "PermanentRedirect": "the bucket is in another region; check AWS_DEFAULT_REGION",
    "301": "the bucket is in another region; check AWS_DEFAULT_REGION",
    "AccessDenied": f"access denied; check the credentials ({_CREDENTIALS}) and what they allow",
    "403": f"access denied; check the credentials ({_CREDENTIALS}) and what they allow",
    "NoCredentialsError": f"there are no credentials; set {_CREDENTIALS}",
    "PartialCredentialsError": f"half of the credentials is missing; set {_CREDENTIALS}",
    "ProfileNotFound": "there is no such profile; check AWS_PROFILE",
    "ParamValidationError": "that is no bucket's name; correct the address",
}
"""Errors that a user can mend, by a server's code or a library's class."""

_NO_ROOM = {
    "QuotaExceeded": "the quota is used up",
    "XMinioAdminBucketQuotaExceeded": "the quota is used up",
    "XMinioStorageFull": "the server's disks are full",
}
"""Errors for lack of room, by a server's code."""

_NO_ANSWER = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "HTTPClientError",
    "SSLError",
    "ProxyConnectionError",
)

_CUT_SHORT = ("ClientPayloadError", "BadDigest", "IncompleteBody")
"""Errors of a broken transfer: a library's class and servers' codes."""

_OF_THE_PATH = {
    errno.EISDIR: "a folder stands where a file should be",
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.EACCES: "access denied; may you read and write there?",
    errno.EROFS: "it can only be read there",
    errno.ENAMETOOLONG: "a name is too long",
    errno.ELOOP: "its links lead in a circle",
}

_STAYS = (*_OF_THE_PATH, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EINVAL, errno.ENOSYS)
"""Errors that a second try would only meet again."""

_PASSING = (408, 409, 425, 429, 500, 502, 503, 504, *range(520, 530))
"""Statuses of a web server, or of a gateway before it, that may pass."""

_NO_PARTS = ("support range requests", "Cannot seek streaming HTTP file")

_REMOTE_IO = getattr(errno, "EREMOTEIO", errno.EIO)  # not every system has it

_SAYS_ENOUGH = (FileNotFoundError, FileExistsError)


def in_words(error: Exception, where: str) -> Exception | None:
    """The error to raise instead, in words; None if the error says enough.

    It is InputError if the user can mend it, ConnectionError if no server answered, and OSError
    with its number if there is no room.  where: the address that the error is about.
    """
    if isinstance(error, InputError):
        return None
    if (fault := of_the_path(error, where)) is not None:
        return fault
    if type(error) is NotImplementedError:
        return InputError(f"{where}: nothing can be written at addresses of this kind")
    for cause in _causes(error):
        for name in (code(cause), type(cause).__name__):
            if name in _OF_THE_USER:
                return InputError(f"{where}: {_OF_THE_USER[name]}")
            if name in _NO_ROOM:
                return OSError(errno.ENOSPC, f"{where}: {_NO_ROOM[name]}")
            if name in _NO_ANSWER:
                return ConnectionError(f"{where}: {_server(cause)} does not answer ({name})")
            if name in _CUT_SHORT:
                return ConnectionError(f"{where}: the connection broke ({name})")
        if isinstance(cause, ValueError) and str(cause).startswith("Invalid endpoint"):
            return InputError(f"{where}: the server's address is none; check AWS_ENDPOINT_URL")
        if (refusal := _of_the_answer(cause, where)) is not None:
            return refusal
    word = next(filter(None, map(code, _causes(error))), "")
    silent = str(error) in ("", "None")
    if isinstance(error, OSError) and (silent or (word and not isinstance(error, _SAYS_ENOUGH))):
        line = f"{where}: the server says {word}" if word else f"{where}: {type(error).__name__}"
        return OSError(error.errno, line) if error.errno is not None else type(error)(line)
    if type(error).__module__.partition(".")[0] == "botocore":
        return OSError(f"{where}: {error}")
    return None


def of_the_path(error: Exception, where: str) -> InputError | None:
    """The error to raise instead if something else is there, or nothing may be done there."""
    if not isinstance(error, OSError) or error.errno not in _OF_THE_PATH:
        return None
    path = error.filename or where
    if error.errno == errno.ENOTDIR:
        path = next((p for p in (path, *map(str, Path(path).parents)) if os.path.isfile(p)), path)
    return InputError(f"{path}: {_OF_THE_PATH[error.errno]}")


def placed(error: Exception, where: str) -> Exception | None:
    """The same error with the address in it; None if it names one, or needs none.

    A full disk and a broken connection do not say what they are about.
    """
    if not isinstance(error, OSError) or isinstance(error, _SAYS_ENOUGH):
        return None
    if error.filename is not None or where in str(error):
        return None
    if error.errno is None:
        return type(error)(f"{where}: {error}")
    return OSError(error.errno, f"{where}: {error.strerror}")


def check_read_whole(file: IO[bytes], read: int) -> None:
    """Raises OSError if a file that is read to its end has ended before its size.

    read: bytes so far.  A file without a size, such as a compressed one, knows its own end.
    """
    size = getattr(file, "size", None)
    if size is not None and read < size:
        raise OSError(errno.EIO, f"cut short in reading, after {read} of {size} bytes")


def may_pass(error: Exception) -> bool:
    """Whether the disk, the network or the server failed, and the request was no mistake."""
    failing = isinstance(error, OSError) and error.errno in (errno.EIO, _REMOTE_IO, errno.EBUSY)
    return failing or isinstance(error, ConnectionError | TimeoutError)


def stays(error: OSError) -> bool:
    """Whether a second try would only meet the error again."""
    return isinstance(error, PermissionError) or error.errno in _STAYS


def is_no_bucket(error: Exception) -> bool:
    """Whether the bucket is missing, not only the file."""
    return _says(error, "NoSuchBucket")


def is_empty(error: Exception) -> bool:
    """Whether an object's first bytes could not be read because it is empty."""
    return _says(error, "InvalidRange")


def _says(error: Exception, word: str) -> bool:
    """Whether an S3 server's word is behind an error."""
    return any(code(cause) == word for cause in _causes(error))


def code(error: BaseException | None) -> str:
    """An S3 server's code for what went wrong; empty if it gave none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def status(error: BaseException | None) -> int | None:
    """The HTTP status with which an S3 server refused; None if it did not."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def _of_the_answer(cause: BaseException, where: str) -> Exception | None:
    """The error to raise for a server's status; None if it says too little, or nothing new."""
    if isinstance(cause, ValueError) and any(phrase in str(cause) for phrase in _NO_PARTS):
        return InputError(
            f"{where}: the server gives no parts of a file, or no size; download it, and name the "
            "copy"
        )
    kinds = [kind.__name__ for kind in type(cause).__mro__]
    if kinds[0] == "TooManyRedirects":
        return InputError(f"{where}: it is redirected without an end; correct the address")
    if "ClientConnectionError" in kinds:
        return ConnectionError(f"{where}: the server does not answer ({kinds[0]})")
    if "ClientResponseError" in kinds:
        number, reason = getattr(cause, "status", 0), getattr(cause, "message", "")
        reason = f"{number} {reason}".strip() if number else kinds[0]
    elif (number := status(cause) or 0) != 0:
        reason = code(cause)
    elif "ClientError" in kinds:
        return InputError(f"{where}: {cause}; check the address")
    if number in (401, 403):
        return InputError(f"{where}: access denied ({reason}); check who you are and what you may")
    if "ClientResponseError" not in kinds or number == 404:
        return None  # S3's codes say the rest
    if number in _PASSING:
        return ConnectionError(f"{where}: the server says {reason}")
    return InputError(f"{where}: the server says {reason}; check the address")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _server(error: BaseException) -> str:
    """Host and port that did not answer: an address may have a password before them."""
    address = getattr(error, "kwargs", {}).get("endpoint_url", "")
    parts = urlsplit(address)
    return parts.netloc.rpartition("@")[2] or "the server"
