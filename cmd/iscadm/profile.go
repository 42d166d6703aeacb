package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

func newProfile(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "profile",
		Short: "The catalogue of controls and the profiles made of them",
	}
	c.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the profiles", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return a.profileList() },
		},
		&cobra.Command{
			Use: "show PROFILE", Short: "Show the controls of a profile", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.profileShow(args[0]) },
		},
		&cobra.Command{
			Use: "controls [ID]", Short: "Show what controls are for, how they are applied and how checked", Args: cobra.MaximumNArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.profileControls(args) },
		})
	return c
}

func (a *app) profileList() error {
	type row struct {
		Name  string `json:"name"`
		Title string `json:"title"`
	}
	var rows []row
	for _, name := range profiles.Names() {
		p, err := profiles.Load(name)
		if err != nil {
			return err
		}
		rows = append(rows, row{p.Name, p.Title})
		a.printf("%-20s %s\n", p.Name, p.Title)
	}
	return a.document(rows)
}

func (a *app) profileShow(name string) error {
	p, err := profiles.Load(name)
	if err != nil {
		return badInput(err)
	}
	a.printf("%s: %s\n", p.Name, p.Title)
	for _, os := range profiles.Platforms {
		for _, id := range p.Controls[os] {
			a.printf("%-8s %-4s %s\n", os, id, profiles.ControlByID(id).Title)
		}
	}
	return a.document(map[string]any{"name": p.Name, "title": p.Title, "controls": p.Controls, "parameters": p.Parameters})
}

func (a *app) profileControls(ids []string) error {
	all := []profiles.Description{}
	for i := range profiles.Controls {
		c := profiles.Controls[i]
		if len(ids) == 0 || slices.Contains(ids, c.ID) {
			all = append(all, c.Describe())
		}
	}
	if len(all) == 0 {
		return badInput(fmt.Errorf("no control %q: see iscadm profile controls", ids[0]))
	}
	for _, d := range all {
		a.printf("%-4s %s\n", d.ID, d.Title)
		if len(ids) > 0 || a.verbose {
			a.printf("     why:        %s\n     platforms:  %s\n     kind:       %s\n     references: %s\n", d.Why, strings.Join(d.Platforms, ", "), d.Kind, strings.Join(d.Refs, ", "))
			for _, os := range slices.Sorted(maps.Keys(d.Absent)) {
				a.printf("     absent:     %s: %s\n", os, d.Absent[os])
			}
			for _, p := range d.Parameters {
				a.printf("     parameter:  %s = %s\n", p.Name, p.Default)
			}
		}
	}
	return a.document(all)
}
