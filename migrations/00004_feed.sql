-- +goose Up

-- One row a process of an authorizer that follows the feed, or did.
create table feed_authorizers (
    instance         text primary key,
    principal_id     text not null,
    cells            text[] not null,
    version          text not null,
    registered_at    timestamptz not null, -- when it was first heard of
    previous         text[] not null,      -- whose disk copy it took over: they had ended by registered_at
    connected_at     timestamptz not null,
    lease_until      timestamptz not null, -- it counts as there until then
    fresh_at         timestamptz not null, -- it cannot be fresher than this
    max_staleness_ms bigint not null       -- it answers "unavailable" that long after fresh_at
);
create index feed_authorizers_lease on feed_authorizers (lease_until);

-- What an instance said that it enforces: the account's history up to and with
-- the revision. dropped: it holds nothing of the account any more. diverged: it
-- holds another history beside, since before a restore, and allows what both allow.
create table feed_acks (
    account_id text not null,
    instance   text not null,
    revision   bigint not null,
    hash       bytea not null, -- of the entry that was acknowledged: after a restore another one may have the revision
    dropped    boolean not null,
    diverged   boolean not null,
    acked_at   timestamptz not null,
    primary key (account_id, instance, revision)
);
create index feed_acks_acked_at on feed_acks (acked_at);
