//! JSON, events, forms and plain text behind masks: however the bytes arrive, the same comes out.

use std::sync::{Arc, LazyLock};

use portcullis::mask::{
    Action, Documents, Enforce, Events, Form, HashKey, Mask, MaskPlan, Masked, Masks, NotMasked,
    Pattern, PlainText,
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
        enforce: Enforce::default(),
    };
    Arc::new(Masks::new(vec![mask]).for_session("crew", &[], &HashKey::new([7; 32])))
});

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let [kind, size, bytes @ ..] = data else { return };
    let size = usize::from(*size) + 1;
    if kind & 3 == 3 {
        let both = [bytes.len().max(1), size].map(|size| plain(bytes, size));
        // What is refused may show at once in one piece and later in several.
        if let [Some(whole), Some(cut)] = both {
            assert_eq!(whole, cut);
        }
        return;
    }
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
}

fn plain(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut text = PlainText::new(&PLAN, false);
    let mut out = Vec::new();
    for piece in bytes.chunks(size) {
        out.extend_from_slice(text.push(&piece.to_vec().into()).ok()?.shown());
    }
    out.extend_from_slice(text.finish().ok()?.shown());
    Some(out)
}

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
