// Package ansiblelocal is the provisioner that runs Ansible playbooks with the Ansible
// that is installed on the machine.
package ansiblelocal

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bake/builder"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/internal/hostpath"
	"bake/internal/lazyregexp"
	"bake/internal/redact"
	"bake/internal/shellquote"
	"bake/provisioner"
	"bake/provisioner/internal/remote"
	"bake/step"
)

// Factory returns the factory of the ansible-local provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("ansible-local", defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner { return &ansibleLocal{o, src} })
}

type ansibleLocal struct {
	*Options
	src *schema.Source
}

// staging is the parent of the default staging directories.
const staging = "/tmp/packer-provisioner-ansible-local"

// removalPatience limits the wait for a machine that is out of reach when the uploaded
// files are to be removed.
const removalPatience = 5 * time.Minute

// Provision implements [provisioner.Provisioner].
func (p *ansibleLocal) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	r := &run{ansibleLocal: p, Machine: remote.Machine{Machine: m, Scope: s, Patience: removalPatience}}
	if err := r.choose(ctx); err != nil {
		return err
	}
	err := r.all(ctx)
	if !r.clean {
		return err
	}
	dir := shellquote.Join(r.dir)
	line := fmt.Sprintf("rm -rf %s 2>/dev/null || sudo -n rm -rf %s", dir, dir) // playbooks may use become
	if r.StagingDirectory == "" {
		line += " && { rmdir " + staging + " 2>/dev/null || :; }"
	}
	return r.Remove(ctx, err, []string{r.dir}, line)
}

// run is one call of Provision.
type run struct {
	*ansibleLocal
	remote.Machine
	dir    string   // the staging directory
	clean  bool     // remove it at the end
	hidden []string // secrets in extra_arguments
}

// choose chooses the staging directory.
func (r *run) choose(ctx context.Context) (err error) {
	r.clean = r.StagingDirectory == ""
	if r.CleanStagingDirectory != nil {
		r.clean = *r.CleanStagingDirectory
	}
	r.dir = r.StagingDirectory
	switch {
	case r.dir == "":
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		r.dir = path.Join(staging, id.String())
	case strings.HasPrefix(r.dir, "~"), strings.Contains(r.dir, "$"):
		if r.dir, err = remote.Resolve(ctx, r.Machine.Machine, r.dir); err != nil {
			return err
		}
	}
	if r.dir = path.Clean(filepath.ToSlash(r.dir)); r.clean && (r.dir == "/" || r.dir == ".") {
		return fmt.Errorf("staging_directory %s cannot be removed; set clean_staging_directory = false", r.StagingDirectory)
	}
	return nil
}

// at returns a path in the staging directory.
func (r *run) at(elem ...string) string { return path.Join(append([]string{r.dir}, elem...)...) }

func (r *run) all(ctx context.Context) error {
	galaxy, err := r.requirements()
	if err != nil {
		return err
	}
	playbooks, err := r.upload(ctx)
	if err != nil {
		return err
	}
	for _, args := range r.galaxy(galaxy) {
		if err := r.ansible(ctx, "", r.GalaxyCommand, args); err != nil {
			return err
		}
	}
	extra, err := r.Render(strings.Join(r.ExtraArguments, " "), nil)
	if err != nil {
		return fmt.Errorf("extra_arguments: %w", err)
	}
	for _, arg := range r.ExtraArguments {
		if arg, err = r.Render(arg, nil); err != nil {
			return fmt.Errorf("extra_arguments: %w", err)
		}
		r.hidden = append(r.hidden, redact.Assigned([]string{arg})...)
	}
	for _, secret := range r.hidden {
		r.src.Secret(secret)
	}
	for _, playbook := range playbooks {
		args := shellquote.Join(playbook, "--extra-vars", r.variables())
		if extra != "" {
			args += " " + extra
		}
		args += " -c local -i " + shellquote.Join(r.at(r.inventoryName()))
		if err := r.ansible(ctx, r.paths(galaxy), r.Command, args); err != nil {
			return err
		}
	}
	return nil
}

// variables returns arguments with variables that identify the build.
func (r *run) variables() string {
	vars := fmt.Sprintf("packer_build_name=%s packer_builder_type=%s", r.Scope.SourceName, r.Scope.SourceType)
	if addr := r.Data["PackerHTTPAddr"]; addr.Text != "" && !addr.Absent {
		vars += " packer_http_addr=" + addr.Text
	}
	return vars
}

// inventoryName is the file name of the inventory in the staging directory.
func (r *run) inventoryName() string {
	if r.InventoryFile != "" {
		return filepath.Base(r.InventoryFile)
	}
	return "packer-provisioner-ansible-local"
}

// inventory returns the text of a generated inventory.
func (o *Options) inventory() string {
	if len(o.InventoryGroups) == 0 {
		return "127.0.0.1\n"
	}
	var b strings.Builder
	for _, group := range o.InventoryGroups {
		fmt.Fprintf(&b, "[%s]\n127.0.0.1\n", group)
	}
	return b.String()
}

// upload uploads all files, and returns the paths of the playbooks on the machine.
func (r *run) upload(ctx context.Context) (playbooks []string, err error) {
	r.Scope.Say(ctx, "Uploading to the staging directory %s", r.dir)
	mode := ""
	if r.StagingDirectory == "" {
		mode = "700" // the uploaded files may contain secrets
	}
	if err := r.MakeDirs(ctx, mode, r.dir); err != nil {
		return nil, err
	}
	dirs := []placed{{".", r.PlaybookDir}, {"group_vars", r.GroupVars}, {"host_vars", r.HostVars}}
	for _, list := range []struct {
		dir   string
		paths []string
	}{{"roles", r.RolePaths}, {"collections", r.CollectionPaths}, {"playbooks", r.PlaybookPaths}} {
		for _, local := range list.paths {
			base, err := baseName(local)
			if err != nil {
				return nil, err
			}
			dirs = append(dirs, placed{path.Join(list.dir, base), local})
		}
	}
	files, playbooks, err := r.playbooks()
	if err != nil {
		return nil, err
	}
	for _, local := range []string{r.InventoryFile, r.GalaxyFile} {
		files = append(files, placed{filepath.Base(local), local})
	}
	absent := func(p placed) bool { return p.local == "" }
	dirs, files = slices.DeleteFunc(dirs, absent), slices.DeleteFunc(files, absent)
	var below []string
	for _, d := range dirs {
		below = append(below, r.at(d.to))
	}
	for _, f := range files {
		below = append(below, path.Dir(r.at(f.to)))
	}
	slices.Sort(below)
	if err := r.MakeDirs(ctx, "", slices.Compact(below)...); err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if err := r.Put(ctx, r.at(d.to), communicator.LocalDir("", d.local)); err != nil {
			return nil, fmt.Errorf("uploading %s: %w", d.local, err)
		}
	}
	for _, f := range files {
		to := r.at(f.to)
		if err := r.Put(ctx, path.Dir(to), communicator.LocalFile(path.Base(to), f.local)); err != nil {
			return nil, fmt.Errorf("uploading %s: %w", f.local, err)
		}
	}
	if r.InventoryFile == "" {
		return playbooks, r.Upload(ctx, r.at(r.inventoryName()), 0o644, []byte(r.inventory()))
	}
	return playbooks, nil
}

// placed is a local file or directory with its path in the staging directory.
type placed struct{ to, local string }

// baseName returns the name of a local directory, even for paths such as "." and
// "a/..".
func baseName(local string) (string, error) {
	whole, err := filepath.Abs(local)
	return filepath.Base(whole), err
}

// playbooks returns the playbooks to upload, and the paths of all playbooks on the
// machine. For playbook_files outside playbook_dir, these contain the absolute local
// path.
func (r *run) playbooks() (upload []placed, paths []string, err error) {
	if r.PlaybookFile != "" {
		name := filepath.Base(r.PlaybookFile)
		return []placed{{name, r.PlaybookFile}}, []string{r.at(name)}, nil
	}
	dir := ""
	if r.PlaybookDir != "" {
		if dir, err = filepath.Abs(r.PlaybookDir); err != nil {
			return nil, nil, err
		}
	}
	for _, local := range r.PlaybookFiles {
		whole, err := filepath.Abs(local)
		if err != nil {
			return nil, nil, err
		}
		if inside, err := filepath.Rel(dir, whole); dir != "" && err == nil && filepath.IsLocal(inside) {
			paths = append(paths, r.at(filepath.ToSlash(inside)))
			continue
		}
		to := strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(whole, filepath.VolumeName(whole))), "/")
		upload = append(upload, placed{to, whole})
		paths = append(paths, r.at(to))
	}
	return upload, paths, nil
}

// requirements are the kinds of content that a requirements file lists.
type requirements struct{ roles, collections bool }

var (
	hasRoles       = lazyregexp.New(`(?m)^roles:`)
	hasCollections = lazyregexp.New(`(?m)^collections:`)
)

func (o *Options) requirements() (requirements, error) {
	if o.GalaxyFile == "" {
		return requirements{}, nil
	}
	text, err := hostpath.Read(o.GalaxyFile, hostpath.Limit)
	collections := hasCollections.Get().Match(text)
	return requirements{hasRoles.Get().Match(text) || !collections, collections}, err // the older format is a list of roles
}

// rolesPath and collectionsPath return the directories that they are installed in.
func (r *run) rolesPath() string { return remotePath(r.GalaxyRolesPath, r.at("galaxy_roles")) }

func (r *run) collectionsPath() string {
	return remotePath(r.GalaxyCollectionsPath, r.at("galaxy_collections"))
}

// remotePath quotes a path on the machine for its shell.
func remotePath(given, otherwise string) string {
	if given == "" {
		given = otherwise
	}
	return remote.Word(filepath.ToSlash(given), false)
}

// galaxy returns the arguments of ansible-galaxy.
func (r *run) galaxy(q requirements) (lines []string) {
	file := shellquote.Join(r.at(filepath.Base(r.GalaxyFile)))
	line := func(verb, dir string) {
		text := fmt.Sprintf("%s -r %s -p %s", verb, file, dir)
		if r.GalaxyForceInstall {
			text += " -f"
		}
		lines = append(lines, text)
	}
	if q.roles {
		line("install", r.rolesPath())
	}
	if q.collections {
		line("collection install", r.collectionsPath())
	}
	return lines
}

// paths returns assignments that make Ansible search the uploaded and installed content, in
// addition to its default paths.
func (r *run) paths(q requirements) string {
	var roles, collections []string
	if q.roles {
		roles = append(roles, r.rolesPath())
	}
	if len(r.RolePaths) > 0 {
		roles = append(roles, shellquote.Join(r.at("roles")))
	}
	if q.collections {
		collections = append(collections, r.collectionsPath())
	}
	if len(r.CollectionPaths) > 0 {
		collections = append(collections, shellquote.Join(r.at("collections")))
	}
	text := ""
	if len(roles) > 0 {
		text += `ANSIBLE_ROLES_PATH="${ANSIBLE_ROLES_PATH:-~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles}":` + strings.Join(roles, ":") + " "
	}
	if len(collections) > 0 {
		text += `ANSIBLE_COLLECTIONS_PATH="${ANSIBLE_COLLECTIONS_PATH:-~/.ansible/collections:/usr/share/ansible/collections}":` + strings.Join(collections, ":") + " "
	}
	return text
}

// notFound is the exit status of a shell for a command that does not exist.
const notFound = 127

// ansible runs one of Ansible's programs in the staging directory.
func (r *run) ansible(ctx context.Context, env, command, args string) error {
	line := fmt.Sprintf("cd %s && %s%s %s", shellquote.Join(r.dir), env, command, args)
	shown := line
	for _, secret := range r.hidden {
		shown = strings.ReplaceAll(shown, secret, redact.Mask)
	}
	r.Scope.Say(ctx, "Executing Ansible: %s", shown)
	code, err := r.Execute(ctx, line)
	words := strings.Fields(command)
	name := command
	for _, w := range words {
		if name = w; !strings.Contains(w, "=") {
			break
		}
	}
	switch {
	case errors.Is(err, communicator.ErrDisconnected):
		return fmt.Errorf("%w; a playbook that runs on the machine cannot reboot it: use the ansible provisioner for that", err)
	case err != nil:
		return err
	case code == notFound:
		return fmt.Errorf("there is no %s on the machine (exit status %d); install Ansible there with a shell provisioner before this one", name, code)
	case code != 0:
		return fmt.Errorf("%s ended with exit status %d", name, code)
	}
	return nil
}
