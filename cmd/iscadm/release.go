package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/internal/release"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// released prints a release.
func (a *app) released(t *release.Subject, r *signing.Release) error {
	a.printf("%s\n", t.Digest())
	return a.document(a.announce(t, r))
}

// announce says what was released, and returns it for --json.
func (a *app) announce(t *release.Subject, r *signing.Release) map[string]any {
	a.notef("%s %s: epoch %d in %s, until %s\n", r.Name, r.Version, r.Epoch, r.Channel, r.Expires.Format(time.RFC3339))
	return map[string]any{
		"digest": t.Digest(), "reference": t.Ref.String(), "key": t.Key.Public().ID(),
		"name": r.Name, "version": r.Version, "channel": r.Channel, "epoch": r.Epoch,
		"issued": r.Issued, "expires": r.Expires, "minimumEpoch": r.MinimumEpoch,
	}
}

func newPromote(a *app) *cobra.Command {
	var s signFlags
	c := &cobra.Command{
		Use:   "promote REF --channel C --key KEY",
		Short: "Release an image in another channel, the same bytes",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withSubject(c.Context(), args[0], &s, func(ctx context.Context, t *release.Subject) error {
				if len(t.Releases()) == 0 {
					return &statusError{statusNo, fmt.Errorf("promote %q: it is no release of this key in any channel; sign it first", t.Ref)}
				}
				r, err := a.release(ctx, t, &s)
				if err != nil {
					return err
				}
				return a.released(t, r)
			})
		},
	}
	s.flags(c)
	c.MarkFlagRequired("channel")
	return c
}

func newRefresh(a *app) *cobra.Command {
	var s signFlags
	c := &cobra.Command{
		Use:   "refresh REF --key KEY",
		Short: "Make a release expire later",
		Long: `State the newest release of an image anew, in each of its channels or in that
of --channel, so that it expires later. Nothing else about it changes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withSubject(c.Context(), args[0], &s, func(ctx context.Context, t *release.Subject) error {
				return a.refresh(ctx, t, &s)
			})
		},
	}
	s.keyFlags(c)
	c.Flags().StringVar(&s.channel, "channel", "", "only in this `CHANNEL`")
	c.Flags().StringVar(&s.expires, "expires", "90d", "`TIME` from now after which nobody may take it in")
	return c
}

func (a *app) refresh(ctx context.Context, t *release.Subject, s *signFlags) error {
	lifetime, err := signing.ParseDuration(s.expires)
	if err != nil {
		return badInput(fmt.Errorf("--expires: %w", err))
	}
	list, err := t.Refresh(ctx, s.channel, lifetime)
	if err != nil {
		return fmt.Errorf("refresh %q: %w", t.Ref, err)
	}
	var docs []map[string]any
	for _, r := range list {
		docs = append(docs, a.announce(t, r))
	}
	a.printf("%s\n", t.Digest())
	return a.document(docs)
}

func newRevoke(a *app) *cobra.Command {
	var s signFlags
	var reason string
	c := &cobra.Command{
		Use:   "revoke REF --reason R --key KEY",
		Short: "Withdraw an image, in every channel and for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withSubject(c.Context(), args[0], &s, func(ctx context.Context, t *release.Subject) error {
				return a.revoke(ctx, t, reason)
			})
		},
	}
	s.keyFlags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, on one line")
	c.MarkFlagRequired("reason")
	return c
}

func (a *app) revoke(ctx context.Context, t *release.Subject, reason string) error {
	if reason == "" {
		return badInput(errors.New("revoke: the reason is empty"))
	}
	if err := t.Revoke(ctx, reason); err != nil {
		return fmt.Errorf("revoke %q: %w", t.Ref, err)
	}
	a.notef("%s %s: revoked\n", t.Image.Config.Name, t.Image.Config.Version)
	a.printf("%s\n", t.Digest())
	return a.document(map[string]any{"digest": t.Digest(), "reference": t.Ref.String(), "key": t.Key.Public().ID(), "revoked": reason})
}
