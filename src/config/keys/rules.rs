//! Keys of what is allowed, seen and kept: rules, masks, row filters, tests, retention.

use super::{Form, LABELS, Section, TEXTS, key, required, section};
use crate::config::mask::MOST_STEP;
use crate::config::value::MOST_APPROVALS;

const ENFORCE: Form = Form::Word(&["source", "output"]);
const ON_UNPROVABLE: Form = Form::Word(&["refuse", "output"]);
const VERDICT: Form = Form::Word(&["allow", "block", "approve"]);

pub(super) const POLICY: Section = section(&[
    key(
        "unparsed",
        Form::Word(&["block", "allow"]),
        "What happens to a command that cannot be understood while a rule might concern it.",
    ),
    key(
        "unprovable",
        Form::Word(&["mask", "block"]),
        "What happens to outputs that may carry masked data.",
    ),
    key(
        "enforce",
        ENFORCE,
        "Where columns are masked: before the server computes, or when values come back.",
    ),
    key(
        "on_unprovable",
        ON_UNPROVABLE,
        "What happens to a statement that cannot be masked at the source.",
    ),
    key(
        "transaction_wait",
        Form::Duration,
        "The longest hold inside a transaction that has done something.",
    ),
]);

pub(super) const RULE: Section = section(&[
    required("name", Form::Text, "What recordings and people call it."),
    key("targets", TEXTS, "Globs over target names."),
    key("labels", LABELS, "Labels that a target must all have."),
    key("groups", TEXTS, "Whom it concerns: callers in one of these groups."),
    key("unless_groups", TEXTS, "Whom it does not concern."),
    key("actions", TEXTS, "Actions of effects, as `sql.drop` or `sftp.*`."),
    key("objects", TEXTS, "Objects of effects, as `table:public.customers` or `file:/etc/**`."),
    key("text", Form::Text, "A regular expression over the command's text."),
    key("when", Form::Text, "A condition, as 'effect.has_where == false'."),
    required("verdict", VERDICT, "What becomes of a command that matches."),
    key("approvers", TEXTS, "With verdict = \"approve\": the groups whose members may."),
    key("approvals", Form::Count(MOST_APPROVALS), "How many of them must."),
    key("timeout", Form::Duration, "How long the command waits for them."),
    key("reason", Form::Text, "What the caller is told."),
    key("mode", Form::Word(&["enforce", "observe"]), "Whether it acts, or is noted alone."),
]);

pub(super) const PATTERN: Section = section(&[
    required("name", Form::Text, "What masks call it, of a-z, 0-9 and -."),
    required(
        "regex",
        Form::Text,
        "A regular expression whose matches are at most 1,024 bytes long.",
    ),
]);

pub(super) const MASK: Section = section(&[
    required("name", Form::Text, "What recordings and people call it."),
    key("targets", TEXTS, "Globs over target names; every target when left out."),
    key("columns", TEXTS, "Columns of databases, as `public.customers.email` or `*.ssn`."),
    key("fields", TEXTS, "Fields of JSON bodies, as `customer.email` or `**.ssn`."),
    key("patterns", TEXTS, "Names of patterns, built in or your own: masked wherever they match."),
    key(
        "step",
        Form::Either(&[
            Form::Count(MOST_STEP),
            Form::Word(&[
                "minute", "hour", "day", "week", "month", "quarter", "year", "decade", "century",
            ]),
        ]),
        "With with = \"bucket\": what values are rounded down to.",
    ),
    key(
        "with",
        Form::Word(&["redact", "partial", "hash", "null", "tokenize", "bucket"]),
        "What stands in a value's place.",
    ),
    key("unless_groups", TEXTS, "Groups whose clients see the values; storage never does."),
    key("enforce", ENFORCE, "As in [policy], for this mask alone."),
    key("on_unprovable", ON_UNPROVABLE, "As in [policy], for this mask alone."),
]);

pub(super) const ROWS: Section = section(&[
    key("name", Form::Text, "What recordings and people call it; the table when left out."),
    key("targets", TEXTS, "Globs over target names; every target when left out."),
    required("table", Form::Text, "A table or view, as `public.customers` or `*.customers`."),
    required("where", Form::Text, "A condition on its columns, as `tenant_id = {claim.tenant}`."),
    key("groups", TEXTS, "Groups whose sessions it is for; everybody when left out."),
    key("unless_groups", TEXTS, "Groups whose sessions it is not for."),
]);

pub(super) const TEST: Section = section(&[
    required(
        "identity",
        Form::Table(&section(&[
            key("user", Form::Text, "The name that people see."),
            key("groups", Form::List(&Form::Text, 0), "The caller's groups."),
            key("claims", Form::Map(&Form::Any), "Claims of the caller's token."),
        ])),
        "Who sends the command.",
    ),
    required("target", Form::Text, "The target's name."),
    required("command", Form::Text, "What is sent."),
    required("expect", VERDICT, "What must become of it."),
    key("rule", Form::Text, "The rule that must decide it."),
    key("masks", Form::List(&Form::Text, 0), "The masks that must hide values from the caller."),
    key("rows", Form::List(&Form::Text, 0), "The row filters that must act on the caller."),
]);

pub(super) const RETENTION: Section = section(&[
    key("targets", TEXTS, "Globs over target names; every target when left out."),
    key("labels", LABELS, "Labels that the target must all have, now."),
    key("groups", TEXTS, "The caller was in one of these; * is every group."),
    required("keep", Form::Duration, "How long after the session's end."),
]);
