"""What went wrong with a remote store, in one line that names it and helps.

Libraries say it in many ways, and often say `None`.  No line has a credential in it.
"""

import errno
from collections.abc import Iterator
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
"""By a server's code or a library's class."""

_NO_ANSWER = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "HTTPClientError",
    "SSLError",
    "ProxyConnectionError",
)

_CUT_SHORT = "ClientPayloadError"

_NO_PARTS = ("support range requests", "Cannot seek streaming HTTP file")

_REMOTE_IO = getattr(errno, "EREMOTEIO", errno.EIO)  # not every system has it

_SAYS_ENOUGH = (FileNotFoundError, FileExistsError)


def in_words(error: Exception, where: str) -> Exception | None:
    """The error to raise instead, in words; None where the error says enough.

    InputError for what the user can mend, ConnectionError where no server answered.
    """
    if isinstance(error, InputError):
        return None
    for cause in _causes(error):
        for name in (code(cause), type(cause).__name__):
            if name in _OF_THE_USER:
                return InputError(f"{where}: {_OF_THE_USER[name]}")
            if name in _NO_ANSWER:
                return ConnectionError(f"{where}: {_server(cause)} does not answer ({name})")
        if (of_the_web := _of_the_web(cause, where)) is not None:
            return of_the_web
        if type(cause).__name__ == _CUT_SHORT:
            return ConnectionError(f"{where}: the connection broke in reading")
        if isinstance(cause, ValueError) and str(cause).startswith("Invalid endpoint"):
            return InputError(f"{where}: the server's address is none; check AWS_ENDPOINT_URL")
    word = next(filter(None, map(code, _causes(error))), "")
    silent = str(error) in ("", "None")
    if isinstance(error, OSError) and (silent or (word and not isinstance(error, _SAYS_ENOUGH))):
        said = f"{where}: the server says {word}" if word else f"{where}: {type(error).__name__}"
        return OSError(error.errno, said) if error.errno is not None else type(error)(said)
    if type(error).__module__.partition(".")[0] == "botocore":
        return OSError(f"{where}: {error}")
    return None


def _of_the_web(error: BaseException, where: str) -> Exception | None:
    """What a web server's answer means, or none; None of other errors, and of a missing file."""
    if isinstance(error, ValueError) and any(said in str(error) for said in _NO_PARTS):
        return InputError(
            f"{where}: the server gives no parts of a file, or no size; download it, and name the "
            "copy"
        )
    if type(error).__module__.partition(".")[0] != "aiohttp":
        return None
    if any(kind.__name__ == "ClientConnectionError" for kind in type(error).__mro__):
        return ConnectionError(f"{where}: the server does not answer ({type(error).__name__})")
    if type(error).__name__ == "TooManyRedirects":
        return InputError(f"{where}: it is redirected without an end; correct the address")
    status = getattr(error, "status", 0)
    if status in (401, 403):
        return InputError(f"{where}: access denied ({status}); check the address and its signature")
    return OSError(f"{where}: the server says {status}") if status >= 500 else None


def placed(error: Exception, where: str) -> Exception | None:
    """The same error with the place in it; None where it names one, or needs none.

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
    """Raise OSError where a file that is read to its end has ended before its size.

    read: bytes so far.  What knows no size, such as a compressed file, knows its own end.
    """
    size = getattr(file, "size", None)
    if size is not None and read < size:
        raise OSError(errno.EIO, f"cut short in reading, after {read} of {size} bytes")


def may_pass(error: Exception) -> bool:
    """Whether it is the disk, the network or the server that failed, not what was asked of it."""
    failing = isinstance(error, OSError) and error.errno in (errno.EIO, _REMOTE_IO, errno.EBUSY)
    return failing or isinstance(error, ConnectionError | TimeoutError)


def is_no_bucket(error: Exception) -> bool:
    """Whether not the file is missing but all that it could lie in."""
    return _says(error, "NoSuchBucket")


def is_empty(error: Exception) -> bool:
    """Whether there was nothing to read of an object's first bytes, since it has none."""
    return _says(error, "InvalidRange")


def _says(error: Exception, word: str) -> bool:
    """Whether an S3 server's word is behind an error."""
    return any(code(cause) == word for cause in _causes(error))


def code(error: BaseException | None) -> str:
    """An S3 server's word for what went wrong; empty where it said none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _server(error: BaseException) -> str:
    """Host and port that did not answer: an address may have a password before them."""
    address = getattr(error, "kwargs", {}).get("endpoint_url", "")
    parts = urlsplit(address)
    return parts.netloc.rpartition("@")[2] or "the server"
