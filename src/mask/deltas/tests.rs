use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::action::Action;
use super::super::plan::{Enforce, Mask, Masks};
use super::super::scanner::HashKey;
use super::super::{Events, Pattern};
use super::*;

fn plan() -> Arc<MaskPlan> {
    let patterns = ["email", "credit-card", "ai-api-key", "private-key"];
    let mask = Mask {
        name: "m".into(),
        targets: None,
        columns: Vec::new(),
        fields: vec!["**.ssn".parse().unwrap()],
        patterns: patterns.iter().map(|name| Pattern::built_in(name).unwrap()).collect(),
        with: Action::Redact,
        unless_groups: Vec::new(),
        enforce: Enforce::default(),
    };
    Arc::new(Masks::new(vec![mask]).for_session("crew", &[], &HashKey::new([7; 32])))
}

/// The data of the events that come out, and how many had come out before the end.
fn passed(events: &[String]) -> (Vec<String>, usize) {
    let mut masked = Events::new(&plan());
    let mut out = Vec::new();
    for event in events {
        out.extend_from_slice(
            masked.push(format!("data: {event}\n\n").as_bytes()).unwrap().shown(),
        );
    }
    let data = |out: &[u8]| -> Vec<String> {
        let text = String::from_utf8(out.to_vec()).unwrap();
        text.lines().filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).collect()
    };
    let before = data(&out).len();
    out.extend_from_slice(masked.finish().unwrap().shown());
    (data(&out), before)
}

/// How interfaces write the next piece of a text, and where it is in what they write.
type Shape = (fn(usize, &str) -> Value, &'static str);

const SHAPES: &[Shape] = &[
    (
        |index, text| {
            json!({"id": "c", "object": "chat.completion.chunk",
                "choices": [{"index": index, "delta": {"content": text}, "finish_reason": null}]})
        },
        "/choices/0/delta/content",
    ),
    (
        |index, text| {
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [
                {"index": index, "function": {"arguments": text}}]}}]})
        },
        "/choices/0/delta/tool_calls/0/function/arguments",
    ),
    (|index, text| json!({"choices": [{"index": index, "text": text}]}), "/choices/0/text"),
    (
        |index, text| {
            json!({"type": "content_block_delta", "index": index,
                "delta": {"type": "text_delta", "text": text}})
        },
        "/delta/text",
    ),
    (
        |index, text| {
            json!({"type": "content_block_delta", "index": index,
                "delta": {"type": "input_json_delta", "partial_json": text}})
        },
        "/delta/partial_json",
    ),
    (
        |index, text| {
            json!({"type": "response.output_text.delta", "item_id": format!("m{index}"),
                "output_index": index, "content_index": 0, "delta": text})
        },
        "/delta",
    ),
    (
        |_, text| json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}]}),
        "/candidates/0/content/parts/0/text",
    ),
];

fn joined(events: &[String], at: &str) -> String {
    let text = |event: &String| -> Option<String> {
        let value: Value = serde_json::from_str(event).ok()?;
        Some(value.pointer(at)?.as_str()?.to_owned())
    };
    events.iter().filter_map(text).collect()
}

#[test]
fn a_secret_over_several_pieces_is_masked() {
    for (shape, at) in SHAPES {
        let pieces = ["mail ali", "ce@exam", "ple.com", " and 4111 1111", " 1111 1111", "."];
        let mut events: Vec<String> =
            pieces.iter().map(|text| shape(0, text).to_string()).collect();
        events.push("[DONE]".to_owned());
        let (out, before) = passed(&events);
        assert_eq!(joined(&out, at), "mail [email] and [credit-card].", "{at}");
        assert_eq!((out.len(), before), (events.len(), events.len()), "{at}");
    }
}

#[test]
fn an_event_waits_only_while_its_text_may_become_a_secret() {
    let (chat, at) = SHAPES[0];
    let event = |text: &str| chat(0, text).to_string();
    let (out, before) = passed(&[event("one "), event("two"), event(" "), event("three")]);
    assert_eq!((before, &*joined(&out, at)), (3, "one two three"));
    // Other texts and other events come behind it, in their order.
    let other = json!({"type": "ping"}).to_string();
    let events = [event("a@b"), other.clone(), chat(1, "x ").to_string(), event(".cc ")];
    let (out, before) = passed(&events);
    assert_eq!(before, 4);
    assert_eq!(out.get(1), Some(&other));
    assert!(out.concat().contains("[email]") && !out.concat().contains("a@b"));
}

#[test]
fn a_text_ends_where_its_interface_says_so() {
    let (chat, _) = SHAPES[0];
    let done = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string();
    let (_, before) = passed(&[chat(0, "bye").to_string(), done]);
    assert_eq!(before, 2);
    let (block, _) = SHAPES[3];
    let stop = json!({"type": "content_block_stop", "index": 0}).to_string();
    let (_, before) = passed(&[block(0, "bye").to_string(), stop.clone()]);
    assert_eq!(before, 2);
    let (_, before) = passed(&[block(1, "bye").to_string(), stop]);
    assert_eq!(before, 0, "another block");
}

#[test]
fn what_is_no_piece_is_masked_as_ever() {
    let event = json!({"id": "a@b.cc", "ssn": "1", "choices": [{"index": 0, "delta": {
        "role": "assistant", "content": "a@b.cc "}}]});
    let (out, _) = passed(&[event.to_string()]);
    let masked: Value = serde_json::from_str(&out[0]).unwrap();
    assert_eq!(masked["id"], "[email]");
    assert_eq!(masked["ssn"], "[masked]");
    assert_eq!(masked["choices"][0]["delta"], json!({"role": "assistant", "content": "[email] "}));
    let plain = json!({"text": "alice", "message": "mail"}).to_string();
    assert_eq!(passed(std::slice::from_ref(&plain)), (vec![plain], 1));
}

#[test]
fn what_waits_is_bounded() {
    let mut events = Events::new(&plan());
    let (chat, _) = SHAPES[0];
    events.push(format!("data: {}\n\n", chat(0, "alice")).as_bytes()).unwrap();
    let ping = b"data: {\"type\":\"ping\"}\n\n";
    let refused = (0..2 * MAX_WAITING).any(|_| events.push(ping).is_err());
    assert!(refused);
}

proptest! {
    #[test]
    fn any_split_into_pieces_gives_the_same_text(
        text in "(a@b\\.cc|alice@example\\.com|4111 1111 1111 1111|sk-[a-z0-9]{24}|[ a-z.é\"\\\\\n]{1,6}){0,6}",
        cuts in prop::collection::vec(1..7_usize, 1..8),
        shape in 0..SHAPES.len(),
        interleaved in any::<bool>(),
    ) {
        let (shape, at) = SHAPES[shape];
        let whole = plan().text(&Bytes::from(text.clone())).into_shown();
        let characters: Vec<char> = text.chars().collect();
        let (mut events, mut rest) = (Vec::new(), &characters[..]);
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            events.push(shape(0, &piece.iter().collect::<String>()).to_string());
            if interleaved {
                events.push("{\"type\":\"ping\"}".to_owned());
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        let (out, _) = passed(&events);
        prop_assert_eq!(out.len(), events.len());
        prop_assert_eq!(joined(&out, at).into_bytes(), whole);
    }
}
