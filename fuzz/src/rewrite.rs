//! Any text, masked at the source: unchanged, refused, or a text that reads nothing masked.

use std::sync::{Arc, LazyLock};

use portcullis::decode::sql::rewrite::{
    MaskedColumn, MaskedRelation, Relations, Resolved, Shown, rewrite,
};
use portcullis::decode::sql::{How, LexerSettings, Use, analyze};

/// Three tables: one masked at the source, one at the output alone, and one that is not clear.
struct Known {
    customers: Arc<MaskedRelation>,
    hashed: Arc<MaskedRelation>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let column = |name: &str, shown| MaskedColumn {
        name: name.to_owned(),
        null: "NULL::pg_catalog.text".to_owned(),
        shown,
        readable: true,
        generated: false,
        key: name == "id",
        groupable: true,
    };
    let table = |name, shown| {
        let columns = [column("id", Shown::Clear), column(name, shown)];
        Arc::new(MaskedRelation::new(&columns, true).expect("it is one"))
    };
    let masked = Shown::Masked("'[masked]'::pg_catalog.text".to_owned());
    Known { customers: table("ssn", masked), hashed: table("token", Shown::AtOutput) }
});

impl Relations for Known {
    fn relation(&self, _: Option<&str>, name: &str) -> Resolved {
        match name {
            "customers" => Resolved::Masked(Arc::clone(&self.customers)),
            "hashed" => Resolved::Masked(Arc::clone(&self.hashed)),
            "twice" => Resolved::Unclear,
            _ => Resolved::Clear,
        }
    }

    fn is_opaque(&self, _: Option<&str>, name: &str) -> bool {
        name == "opaque"
    }
}

fn shows(used: &Use) -> bool {
    let looks = [How::OUTPUT, How::COMPUTED, How::FILTER].iter().any(|how| used.how.has(*how));
    looks && used.table.name() == Some("customers") && &*used.column == "ssn"
}

/// Takes two bytes, of which one bit each is a setting, and a text.
pub fn run(data: &[u8]) {
    let [conforming, quote, text @ ..] = data else { return };
    let Ok(sql) = std::str::from_utf8(text) else { return };
    let (standard_conforming_strings, backslash_quote) = (conforming & 1 == 1, quote & 1 == 1);
    let settings = LexerSettings { standard_conforming_strings, backslash_quote };
    let Ok(Some(sent)) = rewrite(sql, settings, &*KNOWN) else { return };
    // Names can be spelled by their characters' numbers.
    let lower = sql.to_lowercase();
    assert!(lower.contains("customers") || lower.contains("u&\""), "nothing masked is named");
    let again = analyze(&sent.text, settings).expect("what is sent is understood");
    assert_eq!(again.statements.len(), sent.statements.len());
    for (statement, remaining) in again.statements.iter().zip(&sent.statements) {
        assert!(remaining.is_none() || !statement.uses.iter().any(shows));
    }
    for (byte, client) in &sent.places {
        assert!(sent.text.is_char_boundary(*byte) && sql.is_char_boundary(*client));
    }
}
