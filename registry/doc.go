// Package registry keeps images: in an OCI image layout on disk, in one tar file of such a layout,
// and in a registry.
//
// A build writes into a [Layout]: [Layout.Create] gives a blob that is hashed while it is written,
// [WriteImage] makes the manifests and the index over the blobs and moves the tag last. Everything
// else works on a [Ref], which names an image in any of the three places ([Parse]): [Open] gives
// its [Store], [ReadImage] reads one of our images strictly, [FetchBase] reads anybody's image as
// layers, [Copy] takes an image with its referrers and signatures from one place to another.
// [Handler] is a registry of its own for trying things out, and [Layout.Prune] removes what no tag
// leads to any more.
//
// The formats are those of the OCI image specification 1.1 (image-layout.md, image-index.md,
// manifest.md, descriptor.md, config.md), the OCI distribution specification 1.1 (spec.md: pulling,
// pushing, referrers and the referrers tag schema) and, read only, Docker's image manifest version
// 2, schema 2.
//
// Layouts, archives and registries are hostile: digests are checked for their form before they
// become a path, every byte is checked against size and digest, documents and lists are bounded.
// Errors tell what does not exist ([io/fs.ErrNotExist]) from what could not be found out
// ([ErrUndetermined]).
package registry
