-- +goose Up

-- The CAs: the operator's roots (account 00000) and each account's own
-- intermediates. Keys are encrypted under the operator's key.
create table issuers (
    account_id  text not null,
    id          text not null, -- SHA-256 of the public key, hex
    parent      text not null, -- the issuer's id; '' of a root, and of one that was signed elsewhere
    tbs         bytea, -- what is signed, recorded before: DER of the TBSCertificate; null: it is signed elsewhere
    chain       bytea, -- PEM: the certificate, and above it those up to the root that are not in this table; null: not known to be signed
    sealed_key  bytea, -- PKCS #8; null: not kept here
    not_before  timestamptz not null,
    not_after   timestamptz not null,
    created_at  timestamptz not null,
    retired_at  timestamptz, -- it makes no new certificates since then; null: it does
    revoked_at  timestamptz,
    revision    bigint not null,
    primary key (account_id, id)
);
create unique index issuers_id on issuers (id); -- strangers ask for CRLs by it
create index issuers_parent on issuers (parent);
create index issuers_not_after on issuers (not_after);

-- Client certificates of the managed CA: recorded before they are signed.
create table certificates (
    account_id         text not null,
    id                 text not null,
    service_account_id text not null,
    issuer             text not null,
    serial             text not null, -- hex
    spiffe_id          text not null,
    tbs                bytea not null, -- what is signed: DER of the TBSCertificate
    certificate        bytea, -- DER; null: not known to be signed
    fingerprint        text, -- SHA-256 of it, hex
    not_before         timestamptz not null,
    not_after          timestamptz not null,
    first_id           text not null, -- of the chain of renewals; its own id if it is the first
    renewed_from       text not null, -- '' if it is the first
    renewable_until    timestamptz not null,
    created_by         text not null, -- principal
    created_at         timestamptz not null,
    revoked_at         timestamptz,
    revocation_reason  text not null,
    revision           bigint not null,
    last_used_at       timestamptz, -- to the minute; written outside the journal
    replicated         boolean not null, -- authorizers are told that it was made; false: not any more, it has expired
    primary key (account_id, id)
);
create unique index certificates_serial on certificates (account_id, issuer, serial);
create unique index certificates_fingerprint on certificates (account_id, fingerprint);
create index certificates_owner on certificates (account_id, service_account_id, id);
create index certificates_owner_end on certificates (account_id, service_account_id, not_after);
create index certificates_first on certificates (account_id, first_id, renewed_from);
create index certificates_not_after on certificates (not_after);
create index certificates_replicated on certificates (not_after) where replicated;
create index certificates_renewable_until on certificates (renewable_until);

-- What authorizers know as revoked, the managed CA's and customers' own.
create table revocations (
    account_id     text not null,
    id             text not null, -- of the object: certificate/…, serial/…/… or issuer/…
    issuer         text not null, -- '' when revoked by fingerprint
    serial         text not null, -- '' when it is not of one serial number
    fingerprint    text not null, -- '' when it is not by fingerprint
    certificate_id text not null, -- of the managed CA; '' otherwise
    reason         text not null,
    created_by     text not null, -- principal
    revoked_at     timestamptz not null,
    not_after      timestamptz, -- of the certificate, when it is known: it can be forgotten later; null: never
    revision       bigint not null,
    primary key (account_id, id)
);
create index revocations_issuer on revocations (account_id, issuer, revision);
create index revocations_not_after on revocations (not_after) where not_after is not null;

-- How many revocations of each account are never forgotten, which is bounded.
create table revocation_counts (
    account_id text not null,
    lasting    bigint not null,
    primary key (account_id)
);

-- The newest CRL of each issuer. Numbers never fall, also after a restore.
create table crls (
    account_id  text not null,
    issuer      text not null,
    number      bigint not null,
    revision    bigint not null, -- of the issuer's newest revocation in it
    this_update timestamptz not null,
    next_update timestamptz not null,
    der         bytea not null,
    primary key (account_id, issuer)
);
create index crls_next_update on crls (next_update);
