//! What `check` says of masks and rules that name nothing.

use crate::masking::Masked;
use crate::support::gateway::{portcullis, told};

pub fn what_masks_and_rules_name_is_looked_for() {
    let policy = r#"
[[mask]]
name = "typing-error"
columns = ["public.customers.emial", "public.customers.email", "*.ssn"]

[[mask]]
name = "no-such-table"
columns = ["public.costumers.*"]

[[mask]]
name = "right"
columns = ["v_customers.contact", "people_p1.email"]

[[rule]]
name = "nothing-there"
objects = ["table:public.secrets", "column:customers.nssn", "function:public.spend"]
verdict = "block"

[[rule]]
name = "all-there"
objects = ["table:public.v_*", "column:*.ssn", "function:get_contact", "setting:role", "table:sq"]
verdict = "block"

[[rule]]
name = "elsewhere"
targets = ["others-*"]
objects = ["table:public.gone"]
verdict = "block"
"#;
    let masked = Masked::new(policy);
    // The gateway makes its tables.
    masked.gateway.daemon().wait_for_log("state is read");
    let file = masked.gateway.configuration();
    let checked = portcullis(&["check", "--online", "--config", file.to_str().unwrap()]);
    let said = told(&checked);
    assert!(checked.status.success(), "{said}");
    for missing in [
        "warning: mask typing-error: there is no column:public.customers.emial on orders",
        "warning: mask no-such-table: there is no column:public.costumers.* on orders",
        "warning: rule nothing-there: there is no table:public.secrets on orders",
        "warning: rule nothing-there: there is no column:customers.nssn on orders",
        "warning: rule nothing-there: there is no function:public.spend on orders",
    ] {
        assert!(said.contains(missing), "{missing}\n{said}");
    }
    assert_eq!(said.matches("there is no ").count(), 6, "one for the target that is not: {said}");
    for there in [
        "mask right:",
        "mask no-such-table on",
        "all-there",
        "customers.email on",
        "*.ssn on",
        "public.gone",
    ] {
        assert!(!said.contains(there), "{there}\n{said}");
    }
}
