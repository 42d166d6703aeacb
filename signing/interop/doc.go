// Package interop shows that other people's verifiers agree with package signing, and the other way
// round: sigstore-go and the containers policy library (podman, skopeo, bootc) as libraries, cosign
// as the program on PATH. It is a module of its own, so that what these need stays out of the
// programs. Run it in this folder, with ISC_REAL=1 to demand cosign:
//
//	go test -tags containers_image_openpgp,containers_image_storage_stub .
package interop
