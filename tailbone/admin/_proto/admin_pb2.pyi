# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Key(_message.Message):
    __slots__ = ("key_id", "algorithm", "created_at", "state", "foreign", "next_change", "next_change_at", "fault")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHANGE_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHANGE_AT_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    algorithm: str
    created_at: int
    state: str
    foreign: bool
    next_change: str
    next_change_at: int
    fault: str
    def __init__(self, key_id: _Optional[str] = ..., algorithm: _Optional[str] = ..., created_at: _Optional[int] = ..., state: _Optional[str] = ..., foreign: _Optional[bool] = ..., next_change: _Optional[str] = ..., next_change_at: _Optional[int] = ..., fault: _Optional[str] = ...) -> None: ...

class GenerateNewKeysRequest(_message.Message):
    __slots__ = ("size", "algorithm")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    size: int
    algorithm: str
    def __init__(self, size: _Optional[int] = ..., algorithm: _Optional[str] = ...) -> None: ...

class GenerateNewKeysResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    def __init__(self, keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ...) -> None: ...

class RemoveKeyRequest(_message.Message):
    __slots__ = ("key_id",)
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    def __init__(self, key_id: _Optional[str] = ...) -> None: ...

class RemoveKeyResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    def __init__(self, keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "commit", "started_at", "ready", "reasons", "signing_key_id", "issuer", "jwks", "caller", "roles")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    JWKS_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    version: str
    commit: str
    started_at: int
    ready: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    signing_key_id: str
    issuer: str
    jwks: str
    caller: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., commit: _Optional[str] = ..., started_at: _Optional[int] = ..., ready: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., signing_key_id: _Optional[str] = ..., issuer: _Optional[str] = ..., jwks: _Optional[str] = ..., caller: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...
