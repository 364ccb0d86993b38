//! Characters of strangers' texts that are not seen where they are shown, or that change how their
//! neighbors are shown.

/// True for controls, marks of direction, and characters without width.
pub(crate) fn is_unseen(at: char) -> bool {
    at.is_control()
        || matches!(
            at,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}
