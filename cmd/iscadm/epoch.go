package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// held is what this host has acquired of a name in the channel. A state folder is not made for it.
func (s *signFlags) held(ctx context.Context, name string) (signing.Acquired, error) {
	dir, err := s.state.path()
	if err != nil {
		return signing.Acquired{}, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return signing.Acquired{}, nil
	}
	h, err := host.Open(ctx, dir)
	if err != nil {
		return signing.Acquired{}, err
	}
	state, err := h.View()
	if err != nil {
		return signing.Acquired{}, err
	}
	for _, e := range state.Epochs {
		if e.Name == name && e.Channel == s.channel {
			return signing.Acquired{Name: e.Name, Channel: e.Channel, Epoch: e.Epoch, Digest: e.Digest}, nil
		}
	}
	return signing.Acquired{}, nil
}
