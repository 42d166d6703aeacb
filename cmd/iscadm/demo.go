package main

import "github.com/spf13/cobra"

func newDemo(a *app) *cobra.Command {
	return &cobra.Command{Use: "demo", RunE: func(c *cobra.Command, _ []string) error { return nil }}
}
