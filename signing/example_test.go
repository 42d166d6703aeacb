package signing_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

// A release engineer releases an index, and a host takes it until it is withdrawn.
func Example() {
	ctx := context.Background()
	password := func(bool) ([]byte, error) { return []byte("secret"), nil }
	private, public, err := signing.Generate(password)
	if err != nil {
		log.Fatal(err)
	}
	key, err := signing.ParseKey(private, password)
	if err != nil {
		log.Fatal(err)
	}

	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	sign := func(s *signing.Statement, err error) signing.Candidate {
		if err != nil {
			log.Fatal(err)
		}
		b, err := signing.SignBundle(ctx, key, s)
		if err != nil {
			log.Fatal(err)
		}
		return signing.Candidate{Source: s.PredicateType, Bundle: b}
	}
	release := sign(signing.Release{
		Name: "web", Version: "1.4.0", Channel: "stable", Epoch: 7,
		Issued: now, Expires: now.AddDate(0, 0, 90),
	}.Statement(digest))
	revocation := sign(signing.Revocation{Name: "web", Reason: "CVE-2026-1", Issued: now}.Statement(digest))

	trusted, err := signing.ParsePublicKey(public)
	if err != nil {
		log.Fatal(err)
	}
	in := signing.Input{
		Digest: digest, Reference: "registry.example/isc/web:1.4.0",
		Policy: signing.ForKeys(trusted), Now: now,
		Candidates: []signing.Candidate{release},
		Acquired:   []signing.Acquired{{Name: "web", Channel: "stable", Epoch: 6}},
	}
	d, err := signing.Verify(in)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.Release.Name, d.Release.Version, d.Release.Channel, d.Release.Epoch)

	in.Candidates = append(in.Candidates, revocation)
	_, err = signing.Verify(in)
	fmt.Println(err, errors.Is(err, signing.ErrNotVerified))
	// Output:
	// web 1.4.0 stable 7
	// not verified: the image was withdrawn at 2026-11-25T12:00:00Z: "CVE-2026-1" true
}
