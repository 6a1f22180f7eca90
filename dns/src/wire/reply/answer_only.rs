use super::Reply;
use crate::wire::walk::record_at;

impl Reply {
    /// Drops what is behind the answer section; nothing where that is malformed.
    pub fn keep_answer_only(&mut self) {
        let mut at = self.question_end;
        for _ in 0..self.counts[0] {
            let Ok(place) = record_at(&self.octets, at) else {
                return;
            };
            at = place.end;
        }
        self.octets.truncate(at);
        self.compressor.forget_from(at);
        self.counts = [self.counts[0], 0, 0];
    }
}
