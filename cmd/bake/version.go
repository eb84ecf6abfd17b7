package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"bake/config"
	about "bake/internal/release"
	"bake/ui"
)

// version is the version of bake, in semantic versioning.
const version = about.Version

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of bake and of the Packer template language it reads",
		Long: `Print the version of bake and the Packer version whose template language it reads,
which required_version in templates is compared with. Nothing is looked up online.`,
		Example: `  bake version
  bake version -machine-readable`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return p.version() },
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) version() error {
	commit := commit()
	if p.json.on {
		p.json.result = struct {
			Version string `json:"version"`
			Commit  string `json:"commit"`
			Packer  string `json:"packer_version"` // whose template language is read
		}{version, commit, config.LanguageVersion}
		return nil
	}
	if p.machineReadable {
		for _, r := range [][2]string{{"version", version}, {"version-prelease", ""}, {"version-commit", commit}} {
			io.WriteString(p.stdout, ui.Record(p.now(), "", r[0], r[1]))
		}
		return nil
	}
	text := "bake v" + version
	if commit != "" {
		text += " (" + commit + ")"
	}
	_, err := fmt.Fprintf(p.stdout, "%s\nReads templates of Packer v%s.\n", text, config.LanguageVersion)
	return err
}

// commit returns the revision that the program was built from, empty if unknown.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	return revision + dirty
}
