package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// epoch is the one that was asked for, or the one after the highest in the channel. If the image
// itself is the highest it keeps its epoch.
func (t *target) epoch(ctx context.Context, s *signFlags) (int64, error) {
	if s.epoch != "auto" {
		n, err := strconv.ParseInt(s.epoch, 10, 64)
		if err != nil || n < 1 {
			return 0, badInput(fmt.Errorf("--epoch %q: neither auto nor a number from 1", s.epoch))
		}
		return n, nil
	}
	highest, digest, err := highestEpoch(ctx, t.Target, t.image.Config.Name, s.channel, t.key.Public())
	if err != nil {
		return 0, undetermined(fmt.Errorf("--epoch auto: the highest epoch of %q in %q could not be found out: %w", t.image.Config.Name, s.channel, err))
	}
	if t.ref.Place != registry.InRegistry {
		e, err := s.held(ctx, t.image.Config.Name)
		if err != nil {
			return 0, undetermined(fmt.Errorf("--epoch auto: %w", err))
		}
		if e.Epoch > highest {
			highest, digest = e.Epoch, e.Digest
		}
	}
	if digest == t.digest() {
		return highest, nil
	}
	return highest + 1, nil
}

// highestEpoch looks through all that is in a place.
func highestEpoch(ctx context.Context, from registry.Store, name, channel string, key *signing.PublicKey) (epoch int64, digest string, err error) {
	subjects, err := registry.Subjects(ctx, from)
	if err != nil {
		return 0, "", err
	}
	for _, d := range subjects {
		said, err := registry.Statements(ctx, from, d)
		if err != nil {
			return 0, "", err
		}
		for _, r := range signing.Releases(d, said, key) {
			if r.Name == name && r.Channel == channel && r.Epoch > epoch {
				epoch, digest = r.Epoch, d
			}
		}
	}
	return epoch, digest, nil
}

// held is what this host has acquired of a name in the channel. A state folder is not made for it.
func (s *signFlags) held(ctx context.Context, name string) (host.Epoch, error) {
	dir, err := s.state.path()
	if err != nil {
		return host.Epoch{}, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return host.Epoch{}, nil
	}
	h, err := host.Open(ctx, dir)
	if err != nil {
		return host.Epoch{}, err
	}
	state, err := h.View()
	if err != nil {
		return host.Epoch{}, err
	}
	for _, e := range state.Epochs {
		if e.Name == name && e.Channel == s.channel {
			return e, nil
		}
	}
	return host.Epoch{}, nil
}
