-- +goose Up

-- One narrow row an account: the lock that orders its changes, and its position.
create table heads (
    account_id text primary key,
    epoch      bigint not null,
    revision   bigint not null,
    hash       bytea not null,
    digest     bytea not null, -- set hash over the account's live objects
    changed_at timestamptz not null
);
create index heads_changed_at on heads (changed_at);

-- One row a committed change: audit record, feed item and operation at once.
-- body is the record as it was hashed: hash = sha256(previous hash || body).
create table entries (
    account_id   text not null,
    revision     bigint not null,
    epoch        bigint not null,
    operation_id text not null,
    caller       text not null,
    type         text not null,
    target       text not null,
    request_hash bytea not null,
    at           timestamptz not null,
    body         bytea not null,
    hash         bytea not null,
    primary key (account_id, revision),
    constraint entries_operation unique (account_id, operation_id, caller)
);

-- The newest state of what authorizers replicate.
create table objects (
    account_id text not null,
    kind       text not null,
    id         text not null,
    revision   bigint not null,
    deleted    boolean not null,
    data       bytea not null,
    primary key (account_id, kind, id)
);
create index objects_revision on objects (account_id, revision);

-- A person's key for the personal fields in entries. Erasing the person is
-- deleting the row.
create table person_keys (
    account_id text not null,
    person     text not null,
    key        bytea not null,
    primary key (account_id, person)
);

-- Refused attempts, coalesced by minute; outside the chain, bounded.
create table denials (
    account_id text not null,
    minute     timestamptz not null,
    caller     text not null,
    type       text not null,
    reason     text not null,
    count      bigint not null,
    primary key (account_id, minute, caller, type, reason)
);
