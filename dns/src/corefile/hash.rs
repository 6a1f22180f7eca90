//! What tells one configuration from another.

use sha2::{Digest, Sha512};

use super::{Block, Line, Token};

/// SHA-512 of tokens and structure. Every list has its length in front, so that no two
/// structures are one text.
pub(super) fn of(blocks: &[Block]) -> [u8; 64] {
    let mut hasher = Sha512::new();
    length(&mut hasher, blocks.len());
    for block in blocks {
        tokens(&mut hasher, &block.keys);
        lines(&mut hasher, &block.directives);
    }
    hasher.finalize().into()
}

fn lines(hasher: &mut Sha512, of: &[Line]) {
    length(hasher, of.len());
    for line in of {
        tokens(hasher, &line.tokens);
        hasher.update([u8::from(line.body.is_some())]);
        lines(hasher, line.options());
    }
}

fn tokens(hasher: &mut Sha512, of: &[Token]) {
    length(hasher, of.len());
    for token in of {
        length(hasher, token.len());
        hasher.update(token.as_bytes());
    }
}

fn length(hasher: &mut Sha512, of: usize) {
    hasher.update(of.to_le_bytes());
}
