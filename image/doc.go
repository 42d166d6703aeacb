// Package image is the file system that an image is made of, and the description of the image
// itself.
//
// A base is read once into a [Tree]: [ReadTar] for every tar dialect, [ReadLayer] for the layers
// of a container image, [ReadDir] for a folder. The tree is an index in memory over content on
// disk; every file is hashed on the way. Edits go to the tree, which is then frozen and written:
// [WriteTar] as an archive, [WriteMtree] and [WriteObjects] as the content manifest.
//
// The formats are those of POSIX.1-2017 pax(1) (ustar and pax interchange formats), the GNU tar
// manual's appendix on its variants, mtree(5) of FreeBSD and NetBSD, RFC 1952 (gzip), RFC 8878
// (zstd) and the OCI image specification 1.1 (layers, media types).
//
// Input is hostile: archives are checked entry by entry against a root that nothing may leave,
// and against [Limits].
package image
