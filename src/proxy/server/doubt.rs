//! Reasons for refusing a request that are visible in its bytes only.

/// A property of a request that hyper removes before the exchange begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestDoubt {
    /// The target has a fragment.
    Fragment,
    /// `Content-Length` stands beside `Transfer-Encoding`.
    TwoFramings,
}

impl RequestDoubt {
    /// The detail of the problem: a plain sentence for the client.
    pub(super) const fn detail(self) -> &'static str {
        match self {
            // Without its fragment the target would be that of a different request.
            Self::Fragment => {
                "The request's target contains `#`, which never belongs to a request."
            }
            // RFC 9112 section 6.1 lets a server choose; a proxy before the gateway may have chosen
            // the other one.
            Self::TwoFramings => {
                "The request has a Content-Length and a Transfer-Encoding, so its end is in doubt."
            }
        }
    }
}

/// The name that a search looks for.
const NAME: &[u8] = b"content-length:";

/// The search for `Content-Length` in the header lines of a head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NameSearch {
    /// Bytes of the current line that are those of the name; `None`: the line has another name.
    matched: Option<u8>,
    is_found: bool,
    /// The first line has begun.
    is_begun: bool,
}

impl NameSearch {
    /// True when a line had the name.
    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }

    /// Looks at a part of a single line.
    pub(super) fn pass(&mut self, line: &[u8]) {
        if !self.is_begun {
            (self.is_begun, self.matched) = (true, Some(0));
        }
        if let Some(matched) = self.matched {
            self.matched = self.compare(usize::from(matched), line);
        }
        if line.last() == Some(&b'\n') {
            self.matched = Some(0);
        }
    }

    fn compare(&mut self, matched: usize, line: &[u8]) -> Option<u8> {
        let wanted = &NAME[matched..];
        // Most lines differ in the first letter.
        if !line.first()?.eq_ignore_ascii_case(wanted.first()?) {
            return None;
        }
        let count = wanted.len().min(line.len());
        if !wanted[..count].eq_ignore_ascii_case(&line[..count]) {
            return None;
        }
        let matched = matched + count;
        if matched == NAME.len() {
            self.is_found = true;
            return None;
        }
        // The name is shorter than 256 bytes.
        u8::try_from(matched).ok()
    }
}
