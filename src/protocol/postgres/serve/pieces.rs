//! The messages of a recorded direction, put together from the events that hold them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::tape::Place;
use crate::decode::postgres::Malformed;
use crate::decode::postgres::frame::{Side, Walker};
use crate::recording::Event;

/// The messages of one direction, each with where it begins. Of those that may be of any size only
/// the first piece is seen.
#[derive(Debug)]
pub(super) struct Pieces {
    walker: Walker,
    bytes: BytesMut,
    /// The events that the bytes are of: where in each, and how many.
    of: VecDeque<(Place, usize)>,
    lost: bool,
}

impl Pieces {
    pub(super) fn new(side: Side) -> Self {
        let (walker, bytes) = (Walker::new(side), BytesMut::new());
        Self { walker, bytes, of: VecDeque::new(), lost: false }
    }

    pub(super) fn feed(&mut self, event: &Event) {
        if !self.lost {
            self.bytes.extend_from_slice(&event.payload);
            let place = Place { event: event.sequence, byte: 0 };
            self.of.push_back((place, event.payload.len()));
        }
    }

    /// The next message, or its first piece, and where it begins.
    pub(super) fn next(&mut self) -> Option<(Bytes, Place)> {
        loop {
            let piece = match self.walker.next(&self.bytes) {
                Ok(piece) => piece?,
                Err(Malformed(_)) => {
                    self.lost = true;
                    self.bytes.clear();
                    return None;
                }
            };
            let place = self.pass(piece.length)?;
            let message = self.bytes.split_to(piece.length).freeze();
            if piece.first {
                return Some((message, place));
            }
        }
    }

    /// Goes on by so many bytes, and says where the first of them is.
    fn pass(&mut self, mut length: usize) -> Option<Place> {
        let place = self.of.front()?.0;
        while let Some((at, left)) = self.of.front_mut() {
            if *left > length {
                at.byte += length;
                *left -= length;
                break;
            }
            length -= *left;
            self.of.pop_front();
        }
        Some(place)
    }
}
