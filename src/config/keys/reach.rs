//! Keys of who may reach what: issuers, targets, access.

use super::{Form, Key, LABELS, SECRET, Section, TEXTS, key, required, section};
use crate::config::value::MOST_APPROVALS;
use crate::decode::http::dialects;

pub(super) const ISSUER: Section = section(&[
    required("name", Form::Text, "How access rules name it."),
    required("url", Form::Text, "The issuer identifier, compared byte for byte with `iss`."),
    key(
        "preset",
        Form::Word(&["okta", "entra", "google", "keycloak"]),
        "A provider whose defaults are taken for the keys that are left out.",
    ),
    required("audiences", TEXTS, "A token's `aud` must hold one of these."),
    key(
        "accept",
        Form::List(&Form::Word(&["access", "id"]), 1),
        "The kinds of token that are taken.",
    ),
    key("client_id", Form::Text, "Our client at the issuer, for logins."),
    key("client_secret", SECRET, "The client's secret."),
    key("authorized_parties", TEXTS, "Clients that may stand in `azp`, beside `client_id`."),
    key("jwks_hosts", TEXTS, "Hosts other than the issuer's own that its keys may come from."),
    key(
        "username_claim",
        Form::Text,
        "The claim with the name that people see; a name or a JSON pointer.",
    ),
    key("groups_claim", Form::Text, "The claim with the groups."),
    key("workflow_claim", Form::Text, "The claim that names the workflow."),
    key("run_claim", Form::Text, "The claim that names the run."),
    key("max_lifetime", Form::Duration, "Tokens that live longer are refused."),
    key("ca", Form::Path, "PEM file of authorities for the issuer's TLS."),
]);

pub(super) const TARGET: Section = Section {
    by: Some(("protocol", &[("postgres", POSTGRES), ("ssh", SSH_HOST), ("http", WEB_SERVICE)])),
    ..section(&[
        required("name", Form::Text, "What clients ask for: 1 to 63 of a-z, 0-9 and -."),
        key("labels", LABELS, "Words of your own for rules to select by."),
        key(
            "on_recording_failure",
            Form::Word(&["refuse", "continue"]),
            "Whether sessions end when they cannot be recorded, or go on with a gap.",
        ),
        key(
            "default",
            Form::Word(&["allow", "block"]),
            "What happens to an effect that no rule matches.",
        ),
        required(
            "protocol",
            Form::Word(&["postgres", "ssh", "http"]),
            "What it speaks; other keys depend on it.",
        ),
    ])
};

const POSTGRES: &[Key] = &[
    required("address", Form::Text, "The server's `host:port`."),
    required("database", Form::Text, "The database that the bare name means."),
    key(
        "databases",
        Form::List(&Form::Text, 0),
        "Others that clients may ask for, as name/database.",
    ),
    key(
        "tls",
        Form::Word(&["disable", "require", "verify-full"]),
        "Whether chain and name of its certificate must hold, any will do, or there is no TLS.",
    ),
    key("ca", Form::Path, "PEM file of authorities for the target's TLS, or its own certificate."),
    required(
        "credential",
        Form::Table(&section(&[
            required("user", Form::Text, "The role that the gateway logs in as."),
            required("password", SECRET, "Its password."),
        ])),
        "What the gateway logs in with; clients never see it.",
    ),
];

const SSH_HOST: &[Key] = &[
    required("address", Form::Text, "The host's `host:port`."),
    required(
        "host_key",
        Form::Text,
        "The public key that the host must show, as its .pub file has it.",
    ),
    required(
        "credential",
        Form::Table(&Section {
            one_of: &["password", "private_key"],
            ..section(&[
                required("user", Form::Text, "The account that the gateway logs in to."),
                key("password", SECRET, "Its password."),
                key(
                    "private_key",
                    SECRET,
                    "Its private key in OpenSSH's format, without a passphrase.",
                ),
            ])
        }),
        "What the gateway logs in with; clients never see it.",
    ),
    key("record_input", Form::Word(&["full"]), "What is typed into terminals is recorded, too."),
];

const WEB_SERVICE: &[Key] = &[
    required("url", Form::Text, "https:// or http://, host and port, no path."),
    key("kind", Form::Word(dialects::NAMES), "What the service is; a crew names workflow and run."),
    key("ca", Form::Path, "PEM file of authorities for the target's TLS."),
    key(
        "credential",
        Form::Table(&section(&[
            required("header", Form::Text, "The header that it stands in."),
            required("value", SECRET, "What stands there."),
            key("prefix", Form::Text, "What stands before it, as `Bearer `."),
        ])),
        "What the gateway logs in with; clients never see it.",
    ),
    key("cookies", Form::Flag, "Whether cookies pass."),
    key(
        "unmasked_types",
        Form::List(&Form::Text, 0),
        "Content types whose bodies pass although masks cannot read them.",
    ),
    key(
        "pass_headers",
        Form::List(&Form::Text, 0),
        "Request headers that go up although they name an identity or an address.",
    ),
    key(
        "encoded_slash",
        Form::Word(&["refuse", "data", "slash"]),
        "What %2F in a path means to the target: data, a slash, or unknown, so that such paths are refused.",
    ),
];

pub(super) const ACCESS: Section = Section {
    one_of: &["targets", "labels"],
    ..section(&[
        key("groups", TEXTS, "The caller is in one of these; * is every group."),
        key(
            "users",
            Form::List(
                &Form::Table(&section(&[
                    required("issuer", Form::Text, "The issuer's name."),
                    required("subject", Form::Text, "The token's `sub`."),
                ])),
                1,
            ),
            "The caller is one of these.",
        ),
        key("claims", Form::Map(&Form::Any), "Claims that have exactly these values."),
        key("targets", TEXTS, "Globs over target names."),
        key("labels", LABELS, "Labels that a target must all have."),
        key("max_session", Form::Duration, "The longest that a session lives."),
        key("outlive_token", Form::Flag, "Whether a session may go on after its token ends."),
        key(
            "grant",
            Form::Word(&["standing", "approval"]),
            "Whether access is there, or people grant it first, for a time.",
        ),
        key(
            "single_session",
            Form::Flag,
            "What was presented opens one session and never another.",
        ),
        key(
            "approvers",
            TEXTS,
            "With grant = \"approval\": the groups whose members may grant it.",
        ),
        key("approvals", Form::Count(MOST_APPROVALS), "How many of them must."),
        key("duration", Form::Duration, "How long the access lasts, from then on."),
    ])
};
