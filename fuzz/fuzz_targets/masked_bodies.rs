//! JSON, events and forms behind masks: however the bytes arrive, the same comes out.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use portcullis::mask::{
    Action, Documents, Events, Form, HashKey, Mask, MaskPlan, Masked, Masks, NotMasked, Pattern,
};

static PLAN: LazyLock<Arc<MaskPlan>> = LazyLock::new(|| {
    let mask = Mask {
        name: "m".into(),
        targets: None,
        columns: Vec::new(),
        fields: ["a.b", "**.pin"].iter().filter_map(|field| field.parse().ok()).collect(),
        patterns: Pattern::built_in("email").into_iter().collect(),
        with: Action::Redact,
        unless_groups: Vec::new(),
    };
    Arc::new(Masks::new(vec![mask]).for_session("crew", &[], &HashKey::new([7; 32])))
});

fuzz_target!(|data: &[u8]| {
    let [kind, size, bytes @ ..] = data else { return };
    let size = usize::from(*size) + 1;
    let both = [bytes.len().max(1), size].map(|size| match kind & 3 {
        0 => {
            let mut documents = Documents::new(&PLAN);
            pushed(bytes, size, &mut documents, Documents::push, Documents::finish)
        }
        1 => {
            let mut events = Events::new(&PLAN);
            pushed(bytes, size, &mut events, Events::push, Events::finish)
        }
        _ => {
            let mut form = Form::new(&PLAN);
            pushed(bytes, size, &mut form, Form::push, |form| Ok(form.finish()))
        }
    });
    assert_eq!(both[0], both[1]);
});

fn pushed<B>(
    bytes: &[u8],
    size: usize,
    body: &mut B,
    push: fn(&mut B, &[u8]) -> Result<Masked, NotMasked>,
    finish: fn(&mut B) -> Result<Masked, NotMasked>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for piece in bytes.chunks(size) {
        out.extend_from_slice(push(body, piece).ok()?.shown());
    }
    out.extend_from_slice(finish(body).ok()?.shown());
    Some(out)
}
