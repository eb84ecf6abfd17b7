package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/golden/attest"
	"bake/internal/prose"
	"bake/run"
)

// exitCodes is the annotation of a command whose exit codes are not the usual
// ones: one a line, the code, two or more spaces, and its meaning.
const exitCodes = "exit codes"

// usualExitCodes are the exit codes of commands without special ones.
const usualExitCodes = `0    done
1    failed, or the command line is wrong`

// rootExitCodes are those of all commands together.
const rootExitCodes = `0    done
1    failed, or the command line is wrong
3    fmt -check: a file is not in the canonical format
4-8  build, resume, sweep, images: why they failed; see their help
127  no such command
130  build, resume, sweep, images: cancelled by Ctrl-C (SIGINT); 143: by SIGTERM`

// variables are all variables of the environment that bake itself reads, with the
// names that commands refer to them by.
func variables() [][3]string {
	config := "$XDG_CONFIG_HOME/bake/config.hcl\nor ~/.config/bake/config.hcl"
	state, data := "$XDG_STATE_HOME/bake or ~/.local/state/bake", "$XDG_DATA_HOME/bake/cloud\nor ~/.local/share/bake/cloud"
	plugins := "~/.config/packer/plugins"
	if runtime.GOOS == "windows" {
		plugins = `%APPDATA%\packer.d\plugins`
		config = `%APPDATA%\bake\config.hcl`
		state, data = `%LOCALAPPDATA%\bake`, `%LOCALAPPDATA%\bake\cloud`
	}
	return [][3]string{
		{"CONFIG", configVariable, "settings for all templates, in place of variables that are not set; default\n" + config},
		{"BAKE_STATE_DIR", "BAKE_STATE_DIR", "ledgers and logs of runs; default " + state},
		{"BAKE_CLOUD_DIR", "BAKE_CLOUD_DIR", "images and machines of the local cloud; default " + data},
		{cloudInitVariable, cloudInitVariable, "how long builds wait for cloud-init, as -cloud-init-timeout"},
		{cacheLimitVariable, cacheLimitVariable, "maximum size of the cache of local machines, as -cache-limit"},
		{exitCodesVariable, exitCodesVariable, "packer: only the exit codes 0 and 1, as -exit-codes=packer"},
		{"BAKE_ALLOW_EGRESS", "BAKE_ALLOW_EGRESS", "what local machines may connect to besides public addresses, as -allow-egress"},
		{"BAKE_MIRROR", "BAKE_MIRROR", "archives that bases are made from, as -mirror of 'bake cloud up'"},
		{"SIGNING", attest.PassphraseVar, "passphrase of the encrypted key that attestations are signed with"},
		{"INPUTS", "BAKE_INPUTS_KEY", "key for digests of secrets among the inputs of images"},
		{"FLEET", run.KeyVar + ", " + run.KeyFileVar, "secret that all workers of a fleet share, or the file that contains it"},
		{"FLEET", "BAKE_FLEET_ENCRYPT", "if set: encrypt everything in Temporal histories with that secret"},
		{"WORKER", "BAKE_METRICS", "address at which a worker serves metrics, such as 127.0.0.1:9464"},
		{"TRACES", "OTEL_...", "where traces of runs are sent, as in every OpenTelemetry SDK"},
		{"PLUGINS", "PACKER_PLUGIN_PATH", "where plugins are installed; default " + plugins},
		{"PLUGINS", "PACKER_CONFIG_DIR", "directory whose .packer.d has the plugins, in place of that default"},
		{"REGISTRY", "BAKE_PLUGIN_MIRROR", "only directory or URL that plugins are downloaded from;\n'bake plugins mirror' creates one"},
		{"REGISTRY", "PACKER_GITHUB_API_TOKEN", "GitHub token, for a higher API rate limit"},
		{"REGISTRY", "HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "proxies for downloads"},
		{"PKR_VAR", "PKR_VAR_name", "value of the template variable called name"},
		{"LOG", "BAKE_LOG, PACKER_LOG", "if set and not 0: write a debug log to standard error"},
		{"LOG", "BAKE_LOG_PATH, PACKER_LOG_PATH", "write that log and the output of builds to this file; an existing file\nis replaced"},
		{"COLOR", "NO_COLOR, PACKER_NO_COLOR", "if set: disable colored output"},
		{"AWS", "AWS_...", "credentials, region and endpoint, as in every AWS tool"},
	}
}

// reads returns the names of the [variables] that cmd reads, except those that every
// command reads: these are only in the help of bake.
func reads(cmd *cobra.Command) []string {
	var names []string
	add := func(when bool, more ...string) {
		if when {
			names = append(names, more...)
		}
	}
	has := func(flag string) bool { return cmd.Flags().Lookup(flag) != nil }
	is := func(commands ...string) bool { return slices.Contains(commands, commandName(cmd)) }
	of := func(group string) bool { return strings.HasPrefix(commandName(cmd), group+" ") }
	add(has("var"), "PKR_VAR")
	runs := is("build", "resume", "fleet run", "worker")
	boots := has("instance-type")
	changes := is("images rm", "images prune", "images copy", "images promote", "images rollback", "images approve", "images revoke")
	add(runs || boots || changes || of("fleet") || is("sweep", "console", "runs", "log", "ssh", "report", "images diff", "cloud up"), "BAKE_STATE_DIR")
	add(runs || has("local") || of("images") || of("cloud") || is("doctor", "nc"), "BAKE_CLOUD_DIR")
	add(runs && !is("resume") || boots, cloudInitVariable)
	add(runs || is("verify-attestation"), "SIGNING")
	add(runs || is("plan", "fleet plan"), "INPUTS")
	add(is("worker") || of("fleet"), "FLEET")
	add(is("worker"), "WORKER")
	add(runs, "TRACES")
	add(has("cache-limit"), cacheLimitVariable)
	add(has("exit-codes"), exitCodesVariable)
	add(has("allow-egress"), "BAKE_ALLOW_EGRESS")
	add(has("allow-egress") || is("cloud base"), "BAKE_MIRROR")
	add(is("init", "plugins install", "plugins installed", "plugins remove", "plugins required"), "PLUGINS")
	add(is("init", "plugins install", "plugins mirror"), "REGISTRY")
	add(runs || boots || of("images") || is("validate", "plan", "sweep", "fleet plan", "fleet status", "fleet logs", "fleet approve"), "AWS")
	return names
}

// writeHelp prints the help of cmd in so many columns: its description, commands, flags, exit
// codes, environment, and examples.
func writeHelp(w io.Writer, cmd *cobra.Command, columns int) {
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(w, "%s\n\n%s\n", narrowed(about, columns), narrowed("Usage: "+usageLine(cmd), columns))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "Also known as: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.HasAvailableSubCommands() {
		var rows [][2]string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				rows = append(rows, [2]string{c.Name(), c.Short})
			}
		}
		section(w, columns, "Commands", rows)
	}
	section(w, columns, "Flags", flagRows(cmd))
	fmt.Fprintf(w, "\nExit codes:\n%s\n", narrowed(indented(codesOf(cmd)), columns))
	section(w, columns, "Environment", variableRows(cmd))
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
}

// codesOf describes the exit codes of cmd.
func codesOf(cmd *cobra.Command) string {
	codes := cmd.Annotations[exitCodes]
	switch {
	case codes != "":
		return codes
	case !cmd.HasParent():
		return rootExitCodes
	case cmd.HasAvailableSubCommands():
		return usualExitCodes + "\n127  no such command"
	}
	return usualExitCodes
}

// section writes rows of a name and its meaning under a heading. Without rows it writes
// nothing.
func section(w io.Writer, columns int, heading string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	fmt.Fprintf(w, "\n%s:\n", heading)
	room := columns - width - 4
	for _, r := range rows {
		if room < 40 { // names above their meanings
			indent := "\n" + strings.Repeat(" ", 6)
			fmt.Fprintf(w, "  %s%s%s\n", r[0], indent, strings.Join(prose.Wrapped(strings.Join(strings.Fields(r[1]), " "), columns-6), indent))
			continue
		}
		fmt.Fprintf(w, "  %-*s  %s\n", width, r[0], strings.Join(prose.Wrapped(r[1], room), "\n"+strings.Repeat(" ", width+4)))
	}
}

// narrowed returns a text of lines of up to helpWidth columns with lines of so many columns:
// paragraphs are filled again, and long lines that are indented are divided.
func narrowed(text string, columns int) string {
	if columns >= helpWidth {
		return text
	}
	var out []string
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		lines := strings.Split(paragraph, "\n")
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, " ") }) {
			out = append(out, strings.Join(prose.Wrapped(strings.Join(lines, " "), columns), "\n"))
			continue
		}
		for i, l := range lines {
			rest := strings.TrimLeft(l, " ")
			indent := strings.Repeat(" ", len(l)-len(rest))
			lines[i] = indent + strings.Join(prose.Wrapped(rest, columns-len(indent)-2), "\n  "+indent)
		}
		out = append(out, strings.Join(lines, "\n"))
	}
	return strings.Join(out, "\n\n")
}

// helpWidth is how many columns help has, unless a single word needs more.
const helpWidth = 100

// flagRows lists the flags of cmd. A flag that is true by default is listed as set to
// false, with the effect of that as its usage.
func flagRows(cmd *cobra.Command) (rows [][2]string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, about := pflag.UnquoteUsage(f)
		head := "-" + f.Name
		if f.Value.Type() != "bool" && value != "" {
			head += " " + value
		}
		switch {
		case f.Value.Type() == "bool" && f.DefValue == "true":
			head += "=false"
		case f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0":
			about += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		rows = append(rows, [2]string{head, about})
	})
	return rows
}

func variableRows(cmd *cobra.Command) (rows [][2]string) {
	named := reads(cmd)
	for _, v := range variables() {
		if !cmd.HasParent() || slices.Contains(named, v[0]) {
			rows = append(rows, [2]string{v[1], v[2]})
		}
	}
	return rows
}

func indented(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

func usageLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	_, args, _ := strings.Cut(cmd.Use, " ")
	line := cmd.CommandPath()
	if cmd.HasAvailableFlags() {
		line += " [flags]"
	}
	return strings.TrimSpace(line + " " + args)
}
