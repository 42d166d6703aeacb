package remote

import "strings"

// Quote makes one line of arguments, which a shell splits into just these again: sh, dash, bash,
// ksh, zsh, csh, tcsh and fish. Arguments must not have NUL bytes, line feeds or carriage returns.
//
// Single quotes keep everything but what the shells do not agree on: the quote itself, "!", which
// is history to csh even there, and "\", which fish reads there. Those three stand outside, each
// after a backslash, which all read alike.
func Quote(args ...string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		quote(&b, a)
	}
	return b.String()
}

func quote(b *strings.Builder, s string) {
	if s == "" {
		b.WriteString("''")
		return
	}
	if plain(s) {
		b.WriteString(s)
		return
	}
	in := false
	for i := range len(s) {
		c := s[i]
		special := c == '\'' || c == '!' || c == '\\'
		if special == in {
			b.WriteByte('\'') // ends the quotes, or begins them
			in = !in
		}
		if special {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	if in {
		b.WriteByte('\'')
	}
}

// plain reports whether no shell makes anything of s: "=" is left out because zsh and a first
// word do, "~" and "%" because they can stand for something at the beginning.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_./:@,+-", c) >= 0) {
			return false
		}
	}
	return true
}
