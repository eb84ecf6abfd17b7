package hcpsbom

import (
	"strings"

	"bake/config/schema"
	"bake/golden/contents"
	"bake/internal/lazyregexp"
)

// Options are the arguments of an hcp-sbom provisioner.
type Options struct {
	// Path of an SBOM on the machine to download: CycloneDX or SPDX, in JSON. Either this
	// or `auto_generate` is required.
	Source string `hcl:"source,optional"`

	// Generate the SBOM. bake reads the package databases of a Linux machine itself:
	// nothing is uploaded or installed.
	AutoGenerate bool `hcl:"auto_generate,optional"`

	// File to write the SBOM to, or an existing directory. Not set: the current directory.
	// In a directory, the file is named after `sbom_name` or, if that is not set,
	// `packer-user-sbom-*.json` with random characters instead of `*`. An existing file is
	// replaced.
	Destination string `hcl:"destination,optional"`

	// Name of the SBOM: 3 to 36 letters, digits, `_` and `-`.
	SBOMName string `hcl:"sbom_name,optional"`

	// Options of the scan: `-o cyclonedx-json` or `-o spdx-json` selects the format, and
	// `--exclude PATTERN` excludes everything found at matching paths. `--scope` has no
	// effect, since a machine has no layers.
	ScannerArgs []string `hcl:"scanner_args,optional"`

	// Directory on the machine to scan, as the root of a system.
	ScanPath string `hcl:"scan_path,optional"`

	// Command that reads the machine. `{{.Path}}` is a shell script that bake uploads, and
	// `{{.Output}}` the file for its output; both are removed afterwards. `{{.Args}}` and
	// `{{.ScanPath}}` are accepted, but have no effect. Not set: the script is sent to `sh`
	// over the connection, with `sudo` if that needs no password.
	ExecuteCommand string `hcl:"execute_command,optional,deferred"`

	// User that runs the scanner on Windows. No effect: bake does not make SBOMs of
	// Windows.
	ElevatedUser string `hcl:"elevated_user,optional"`

	// Has no effect, like `elevated_user`.
	ElevatedPassword string `hcl:"elevated_password,optional"`

	// Ignored, as by Packer: no scanner is downloaded.
	ScannerURL string `hcl:"scanner_url,optional"`

	// Ignored, as by Packer.
	ScannerChecksum string `hcl:"scanner_checksum,optional"`
}

func defaults() Options {
	return Options{ScannerArgs: []string{"-o", "cyclonedx-json"}, ScanPath: "/"}
}

var namePattern = lazyregexp.New(`^[A-Za-z0-9_-]{3,36}$`)

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	switch {
	case !c.Known(&o.Source) || !c.Known(&o.AutoGenerate):
	case o.Source == "" && !o.AutoGenerate:
		c.Errorf(&o.Source, "No SBOM", "Set source to download an SBOM, or auto_generate = true to make one.")
	case o.Source != "" && o.AutoGenerate:
		c.Errorf(&o.Source, "Two SBOMs", "source and auto_generate cannot be used together.")
	}
	if o.SBOMName != "" && !namePattern.Get().MatchString(o.SBOMName) {
		c.Errorf(&o.SBOMName, "Unusable name", "sbom_name must have 3 to 36 letters, digits, _ and -.")
	}
	if _, err := parse(o.ScannerArgs); err != "" {
		c.Errorf(&o.ScannerArgs, "Unusable scanner_args", "%s", err)
	}
	if !strings.HasPrefix(o.ScanPath, "/") {
		c.Errorf(&o.ScanPath, "Unusable path", "scan_path must be absolute.")
	}
	if o.ExecuteCommand != "" && (!strings.Contains(o.ExecuteCommand, ".Path") || !strings.Contains(o.ExecuteCommand, ".Output")) {
		c.Errorf(&o.ExecuteCommand, "Unusable command", "execute_command must contain {{.Path}} and {{.Output}}.")
	}
	if o.ElevatedUser != "" {
		c.Warnf(&o.ElevatedUser, "Option without effect", "elevated_user is for Windows machines, whose SBOM bake cannot make.")
	} else if o.ElevatedPassword != "" {
		c.Errorf(&o.ElevatedPassword, "Password without a user", "elevated_password needs elevated_user.")
	}
	for _, f := range []*string{&o.ScannerURL, &o.ScannerChecksum} {
		if *f != "" {
			c.Warnf(f, "Option without effect", "%s is ignored: no scanner is downloaded. To use another scanner, run it in a shell provisioner and set source.", c.Name(f))
		}
	}
}

// scan is the content of scanner_args.
type scan struct {
	format  contents.Format
	exclude []string
}

// parse parses scanner_args; wrong describes an error in them.
func parse(args []string) (s scan, wrong string) {
	s.format = contents.CycloneDX
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		if !given && (name == "-o" || strings.HasPrefix(name, "--")) {
			if i++; i == len(args) {
				return s, name + " needs a value."
			}
			value = args[i]
		}
		switch name {
		case "-o", "--output":
			switch value {
			case "cyclonedx-json":
				s.format = contents.CycloneDX
			case "spdx-json":
				s.format = contents.SPDX
			default:
				return s, "The format is " + value + ", not cyclonedx-json or spdx-json."
			}
		case "--exclude":
			s.exclude = append(s.exclude, value)
		case "--scope":
			if value != "squashed" && value != "all-layers" {
				return s, "The scope is " + value + ", not squashed or all-layers."
			}
		default:
			return s, name + " is not one of -o, --exclude and --scope."
		}
	}
	return s, contents.CheckPatterns(s.exclude)
}
