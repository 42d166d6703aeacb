package image

// A Content is the content manifest of an image read back: what a root must look like.
type Content struct {
	entries []Entry // in the order of Compare, from the root
}
