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
    __slots__ = ("version", "commit", "started_at", "ready", "reasons", "signing_key_id", "issuer", "jwks", "caller", "roles", "void_rules")
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
    VOID_RULES_FIELD_NUMBER: _ClassVar[int]
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
    void_rules: int
    def __init__(self, version: _Optional[str] = ..., commit: _Optional[str] = ..., started_at: _Optional[int] = ..., ready: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., signing_key_id: _Optional[str] = ..., issuer: _Optional[str] = ..., jwks: _Optional[str] = ..., caller: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., void_rules: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("node", "audience")
    NODE_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    node: str
    audience: str
    def __init__(self, node: _Optional[str] = ..., audience: _Optional[str] = ...) -> None: ...

class ExplainedRule(_message.Message):
    __slots__ = ("rule", "matches", "void")
    RULE_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    VOID_FIELD_NUMBER: _ClassVar[int]
    rule: str
    matches: bool
    void: str
    def __init__(self, rule: _Optional[str] = ..., matches: _Optional[bool] = ..., void: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("node", "sub", "caller", "addresses", "rules", "claims", "error", "message", "detail", "notes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SUB_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    sub: str
    caller: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    rules: _containers.RepeatedCompositeFieldContainer[ExplainedRule]
    claims: str
    error: str
    message: str
    detail: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., sub: _Optional[str] = ..., caller: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., rules: _Optional[_Iterable[_Union[ExplainedRule, _Mapping]]] = ..., claims: _Optional[str] = ..., error: _Optional[str] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...
