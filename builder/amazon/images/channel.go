package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/internal/imagetag"
	"bake/step"
)

// imageType is the data type of parameters that name images.
const imageType = "aws:ec2:image"

// Entry is a version of a parameter that is a channel.
type Entry struct {
	Image   string    `json:"image"`
	Version int64     `json:"version"`
	At      time.Time `json:"at"`
	By      string    `json:"by"` // ARN
	Why     string    `json:"why,omitempty"`
}

// History lists what a channel has named in a region, the newest first; nothing if there is
// no such channel.
func (a *Account) History(ctx context.Context, region, parameter string) (all []Entry, err error) {
	var wrong error
	err = parameterHistory(ctx, a.session.SSM(region), parameter, func(h parameterVersion) {
		if h.DataType == imageType {
			all = append(all, Entry{h.Value, h.Version, h.LastModifiedDate.UTC(), h.LastModifiedUser, h.Description})
			return
		}
		wrong = fmt.Errorf("the parameter %s in %s of account %s has the data type %q, not %s, and AWS cannot change that; delete it, or name another in the channel block", parameter, region, a.ID, h.DataType, imageType)
	})
	if access.Is(err, "ParameterNotFound") {
		return nil, nil
	}
	if err == nil {
		err = wrong
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Version > all[j].Version })
	return all, err
}

// since is when the channel began to name the image that it names now.
func since(history []Entry) (at time.Time) {
	for _, e := range history {
		if e.Image != history[0].Image {
			break
		}
		at = e.At
	}
	return at
}

// Channel implements [builder.Distributor].
func (o *Distributor) Channel(ctx context.Context, parameter string, at []builder.Placement) (builder.ChannelState, error) {
	var mu sync.Mutex
	state := builder.ChannelState{Names: len(at) > 0}
	var each errgroup.Group
	each.SetLimit(regionsAtOnce)
	for _, p := range at {
		each.Go(func() error {
			a, err := o.in(ctx, p.Account)
			if err != nil || a == nil {
				return err
			}
			history, err := a.History(ctx, p.Region, parameter)
			history = lasting(history)
			mu.Lock()
			defer mu.Unlock()
			state.TakenBack = state.TakenBack || takenBack(history, p.ID)
			if len(history) > 0 && history[0].At.After(state.Moved) {
				state.Moved = history[0].At
			}
			if len(history) == 0 || history[0].Image != p.ID {
				state.Names = false
			} else if begun := since(history); begun.After(state.Since) {
				state.Since = begun
			}
			return err
		})
	}
	err := each.Wait()
	if !state.Names {
		state.Since = time.Time{}
	}
	return state, err
}

// lasting returns a history, the newest first, without the moves that bake has reverted:
// they mean only that another place could not be written.
func lasting(history []Entry) (all []Entry) {
	for i := 0; i < len(history); i++ {
		e := history[i]
		if e.Why == putBack && i+1 < len(history) {
			undone := history[i+1] // which may have been written twice
			for i+1 < len(history) && history[i+1].Image == undone.Image && history[i+1].Why == undone.Why {
				i++
			}
			if i+1 < len(history) { // otherwise the preceding value is no longer in the history
				continue
			}
		}
		all = append(all, e)
	}
	return all
}

// Newer returns the ID of the image that the channel names in the place of at if that image
// was made after the one in at, according to [imagetag.Order]; otherwise empty. tied
// reports whether both were made in the same second, so that only their IDs distinguish
// them.
func (o *Distributor) Newer(ctx context.Context, parameter string, at builder.Placement) (id string, tied bool, err error) {
	a, err := o.in(ctx, at.Account)
	if err != nil || a == nil {
		return "", false, err
	}
	history, err := a.History(ctx, at.Region, parameter)
	if err != nil || len(history) == 0 || history[0].Image == at.ID {
		return "", false, err
	}
	found, err := a.byID(ctx, at.Region, history[0].Image, at.ID)
	if err != nil || len(found) != 2 { // an image that no longer exists does not count
		return "", false, err
	}
	named, one := found[0], found[1]
	if named.ID == at.ID {
		named, one = one, named
	}
	if imagetag.Order(named.made(), one.made()) < 0 {
		return "", false, nil
	}
	return named.ID, imagetag.Age(named.made(), one.made()) == 0, nil
}

// Own reports whether the image of a place belongs to the account that distributes images.
func (o *Distributor) Own(at builder.Placement) bool { return at.Account == o.own.ID && !at.Shared }

// takenBack reports whether a channel was moved from an image to one that it had named
// before, and has not named the image since.
func takenBack(history []Entry, id string) bool {
	n := slices.IndexFunc(history, func(e Entry) bool { return e.Image == id })
	return n > 0 && slices.ContainsFunc(history[n+1:], func(e Entry) bool { return e.Image == history[n-1].Image })
}

// move is a change of a channel in one place.
type move struct {
	*Account
	region, parameter, image, why string

	before    []Entry // the history at the time of the decision
	written   bool    // the parameter may have been written
	accepted  bool    // Systems Manager has accepted the value, and may still write it
	confirmed bool    // the parameter was seen to be written
	blind     error   // why the last query did not show what the channel names
}

// byBake begins the lines that moves of channels by bake have in their histories.
const byBake = "bake: "

// putBack is the history text of a write that reverts a move which failed in another
// place.
const putBack = byBake + "put back, because another place could not be written"

// line returns the description of a move for the history.
func line(s *step.Scope, what string) string { return byBake + what + "; run " + s.Run.ID }

// errSplit is the error of a channel whose previous value could not be restored.
var errSplit = errors.New("the channel may name different images in different places now: have it name one everywhere with bake images promote or bake images rollback")

// MoveChannel implements [builder.Distributor]. It skips accounts without a role to assume.
func (o *Distributor) MoveChannel(ctx context.Context, s *step.Scope, parameter, what string, at []builder.Placement) error {
	var moves []*move
	warned := map[string]bool{}
	for _, p := range at {
		a, err := o.in(ctx, p.Account)
		if err != nil {
			return err
		}
		if a == nil && warned[p.Account] {
			continue
		}
		if a == nil {
			warned[p.Account] = true
			s.Warn(ctx, "The channel %s is not written in account %s: the distribute block names no role in it", parameter, p.Account)
			continue
		}
		moves = append(moves, &move{Account: a, region: p.Region, parameter: parameter, image: p.ID, why: line(s, what)})
	}
	return o.own.change(ctx, s, moves)
}

// change changes a channel in all places, or in none: it first checks all places, then
// locks each, and only then writes them, the account's home place last. If a place cannot
// be written, the others are reverted. Between the first and the last write, readers in
// different places see different images. The error says whether the channel is unchanged.
func (a *Account) change(ctx context.Context, s *step.Scope, moves []*move) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, errSplit) {
			err = fmt.Errorf("the channel stays as it was: %w", err)
		}
	}()
	s.Handle(ownership.Prefix, destroy.For(a.session))
	if err := eachMove(ctx, moves, (*move).look); err != nil {
		return err
	}
	moves = slices.DeleteFunc(slices.Clone(moves), (*move).made)
	if len(moves) == 0 {
		return nil
	}
	parameter := moves[0].parameter
	token := "bake run " + s.Run.ID + " " + uuid.NewString()
	var locks []string
	unlock := func(ctx context.Context) error {
		return s.Discard(ctx, func(r step.Resource) bool { return slices.Contains(locks, r.Key) })
	}
	for _, m := range moves {
		key, err := m.lock(ctx, s, token)
		locks = append(locks, key)
		if err != nil {
			return errors.Join(err, unlock(ctx))
		}
	}
	err = eachMove(ctx, moves, (*move).still)
	if err == nil {
		moves = slices.DeleteFunc(moves, (*move).made)
		err = a.write(ctx, moves)
	}
	left := unlock(ctx)
	if err == nil && left != nil { // the channel has moved; the end of the run retries
		s.Warn(ctx, "The channel %s has moved, but a lock on it is not removed yet: %s", parameter, left)
		return nil
	}
	return errors.Join(err, left)
}

func eachMove(ctx context.Context, moves []*move, do func(*move, context.Context) error) error {
	p := &placing{}
	var each errgroup.Group
	each.SetLimit(regionsAtOnce)
	for _, m := range moves {
		each.Go(func() error {
			p.add(builder.Placement{Account: m.ID, Region: m.region}, do(m, ctx))
			return nil
		})
	}
	_ = each.Wait() // the errors are in p
	_, err := p.result(ctx, "")
	return err
}

// look finds out whether the channel can name the image.
func (m *move) look(ctx context.Context) (err error) {
	if err := m.whole(ctx, m.region, m.image); err != nil {
		return fmt.Errorf("the channel %s cannot name it: %w", m.parameter, err)
	}
	m.before, err = m.History(ctx, m.region, m.parameter)
	return err
}

// made reports whether the channel named the image already when it was read.
func (m *move) made() bool { return len(m.before) > 0 && m.before[0].Image == m.image }

// still returns an error if the channel has been moved to another image since it was read.
// The write of a promotion that was killed may arrive late: then the move is made.
func (m *move) still(ctx context.Context) error {
	now, err := m.History(ctx, m.region, m.parameter)
	if err != nil {
		return err
	}
	if len(now) == 0 && len(m.before) > 0 {
		return fmt.Errorf("the channel %s was deleted meanwhile; look at it, and run the command again", m.parameter)
	}
	if newest(now) != newest(m.before) && now[0].Image == m.image {
		m.before = now
		return nil
	}
	if newest(now) != newest(m.before) {
		return fmt.Errorf("the channel %s was moved to %s by %s at %s; look at it, and run the command again", m.parameter, now[0].Image, now[0].By, now[0].At.Format(time.RFC3339))
	}
	return nil
}

func newest(history []Entry) int64 {
	if len(history) == 0 {
		return 0
	}
	return history[0].Version
}

// write writes all places, or restores their previous values.
func (a *Account) write(ctx context.Context, moves []*move) error {
	sort.SliceStable(moves, func(i, j int) bool { return rank(a, moves[i]) < rank(a, moves[j]) })
	for _, m := range moves {
		err := m.put(ctx)
		if err == nil {
			continue
		}
		err = &PlaceError{m.ID, m.region, err}
		var split []error
		for _, w := range moves {
			if undone := w.back(context.WithoutCancel(ctx)); undone != nil {
				split = append(split, fmt.Errorf("putting back the channel %s: %w", w.parameter, &PlaceError{w.ID, w.region, undone}))
			}
		}
		if len(split) > 0 {
			return fmt.Errorf("%w: %w", errSplit, errors.Join(append([]error{err}, split...)...))
		}
		return err
	}
	return nil
}

func rank(a *Account, m *move) int {
	if m.ID == a.ID && m.region == a.home() {
		return 1
	}
	return 0
}

// settleTime is how long Systems Manager may take to validate the images that parameters
// name. It validates them after it has accepted the parameters.
const settleTime = 2 * time.Minute

// put writes the parameter, and waits until it is valid. Systems Manager has no
// conditional writes; the versions show afterwards whether there was another write.
func (m *move) put(ctx context.Context) error {
	m.written = true
	err := m.session.SSM(m.region).Finish(ctx, "PutParameter", map[string]any{
		"Name": m.parameter, "Value": m.image, "Type": "String", "DataType": imageType, "Description": m.why, "Overwrite": len(m.before) > 0,
	}, nil)
	if access.Refused(err) {
		m.written = false
	}
	m.accepted = err == nil
	if err != nil && (!m.written || m.settled(ctx, m.session.Pace.Visible+time.Second, m.newer) != nil) {
		return err // it may still be written: then it is restored
	}
	err = m.settled(ctx, settleTime, func(now []Entry) (bool, error) {
		for _, e := range now { // a promotion that was killed may have sent the same image
			if e.Version > newest(m.before) && e.Image != m.image {
				return false, fmt.Errorf("%s has written the channel %s, too: %s at %s; nothing more is written there", e.By, m.parameter, e.Image, e.At.Format(time.RFC3339))
			}
		}
		return newest(now) > newest(m.before), nil
	})
	m.confirmed = err == nil
	if err != nil && m.blind == nil && context.Cause(ctx) == nil { // the time limit has passed
		m.accepted = false
	}
	return err
}

func (m *move) newer(now []Entry) (bool, error) { return newest(now) > newest(m.before), nil }

// settled polls the channel until done returns true, for at most limit.
func (m *move) settled(ctx context.Context, limit time.Duration, done func([]Entry) (bool, error)) error {
	watch := wait.Watch{Delay: m.session.Pace.Retry, Limit: limit}
	if watch.Delay > 5*time.Second || watch.Delay <= 0 {
		watch.Delay = time.Second
	}
	var other error // what done found
	err := watch.Until(ctx, "the parameter "+m.parameter+" in "+m.region+" to name "+m.image, func(ctx context.Context) (ok bool, err error) {
		now, err := m.History(ctx, m.region, m.parameter)
		if m.blind = err; err != nil {
			return false, err
		}
		ok, other = done(now)
		return ok, other
	})
	if err != nil && other == nil && m.blind == nil && context.Cause(ctx) == nil {
		return fmt.Errorf("%w. Systems Manager silently drops a value if the image is not there for account %s, or if these credentials lack ec2:DescribeImages", err, m.ID)
	}
	return err
}

// back restores what the channel named before, unless it has been written meanwhile. It
// deletes a channel that did not exist.
func (m *move) back(ctx context.Context) error {
	if !m.written {
		return nil
	}
	m.written = false
	ctx, cancel := context.WithTimeout(ctx, 3*settleTime) // to look, to write, and to look again
	defer cancel()
	client := m.session.SSM(m.region)
	limit := m.session.Pace.Visible + time.Second
	if m.accepted && !m.confirmed { // it may not be visible yet
		limit = settleTime
	}
	var foreign *Entry
	err := m.settled(ctx, limit, func(now []Entry) (bool, error) {
		for i, e := range now {
			if e.Version > newest(m.before) && (e.Image != m.image || e.Why != m.why) {
				foreign = &now[i]
			}
		}
		return newest(now) > newest(m.before), nil
	})
	switch {
	case foreign != nil:
		return fmt.Errorf("%s has written it since: %s", foreign.By, foreign.Image)
	case err != nil && (m.confirmed || m.blind != nil || context.Cause(ctx) != nil):
		return err // it may be written
	case err != nil:
		return nil // it was never written
	case len(m.before) == 0:
		err = client.Do(ctx, "DeleteParameter", map[string]any{"Name": m.parameter}, nil)
		if access.Is(err, "ParameterNotFound") {
			return nil
		}
		return err
	}
	old := m.before[0].Image
	err = client.Do(ctx, "PutParameter", map[string]any{
		"Name": m.parameter, "Value": old, "Type": "String", "DataType": imageType, "Description": putBack, "Overwrite": true,
	}, nil)
	if err != nil {
		return err
	}
	return m.settled(ctx, settleTime, func(now []Entry) (bool, error) { return len(now) > 0 && now[0].Image == old, nil })
}

// lockTime is the time after which a lock that its owner has not removed expires.
const lockTime = 15 * time.Minute

// lockTries is how often to retry a lock that another process had taken and then released.
const lockTries = 3

// lock prevents others that check for locks from changing the channel, until the scope
// releases the resource with the returned key.
func (m *move) lock(ctx context.Context, s *step.Scope, token string) (key string, err error) {
	name := m.parameter + ".lock"
	value := token + " until " + time.Now().Add(lockTime).UTC().Format(time.RFC3339)
	owner := &ownership.Owner{Session: m.session, Run: s.Run.ID, ID: ownership.NewID()}
	key = "lock " + m.ID + " " + m.region + " " + token
	want := owner.Resource(ownership.Lock, key, m.region, ownership.WithName, name, ownership.WithKey, value)
	client := m.session.SSM(m.region)
	_, err = ownership.Acquire(ctx, s, "lock the channel "+m.parameter+" in "+m.region, want, func(ctx context.Context) (string, struct{}, error) {
		for try := 1; ; try++ {
			err := client.Finish(ctx, "PutParameter", map[string]any{"Name": name, "Value": value, "Type": "String", "Overwrite": false}, nil)
			if !access.Is(err, "ParameterAlreadyExists") {
				return name, struct{}{}, err
			}
			mine, err := m.brokenLock(ctx, name, value)
			if err != nil || mine {
				return name, struct{}{}, err
			}
			if try == lockTries {
				return name, struct{}{}, fmt.Errorf("the lock on the channel %s in %s is taken again and again by others; try later. The lock is the parameter %s", m.parameter, m.region, name)
			}
		}
	})
	return key, err
}

// brokenLock examines an existing lock, and takes it over if it has expired. The lock may
// be the one that was to be created. mine reports whether the lock now has the given
// value.
func (m *move) brokenLock(ctx context.Context, name, value string) (mine bool, err error) {
	client := m.session.SSM(m.region)
	var out struct{ Parameter parameterVersion }
	err = client.Do(ctx, "GetParameter", map[string]any{"Name": name}, &out)
	if access.Is(err, "ParameterNotFound") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	has := out.Parameter.Value
	if has == value {
		return true, nil
	}
	who, until, _ := strings.Cut(has, " until ")
	end, err := time.Parse(time.RFC3339, until)
	if err != nil || time.Now().Before(end) {
		return false, fmt.Errorf("the channel %s is locked by %s until %s; wait for that or, if it was killed, run bake sweep. The lock is the parameter %s", m.parameter, who, until, name)
	}
	return m.takeOver(ctx, name, value, has, out.Parameter.Version)
}

// takeOver writes the next version of an expired lock. If several processes do that at
// once, the lock belongs to the one whose version follows the old one; the others restore
// that version.
func (m *move) takeOver(ctx context.Context, name, value, old string, version int64) (mine bool, err error) {
	client := m.session.SSM(m.region)
	put := func(value string) error {
		return client.Finish(ctx, "PutParameter", map[string]any{"Name": name, "Value": value, "Type": "String", "Overwrite": true}, nil)
	}
	if err := put(value); err != nil {
		return false, err
	}
	var all []parameterVersion
	if err := parameterHistory(ctx, client, name, func(h parameterVersion) { all = append(all, h) }); err != nil {
		return false, err
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Version < all[j].Version })
	next := 0 // if the old version no longer exists, it was released meanwhile, and the first version wins
	if n := slices.IndexFunc(all, func(h parameterVersion) bool { return h.Version == version && h.Value == old }); n >= 0 {
		next = n + 1
	}
	if next >= len(all) {
		return false, nil
	}
	winner := all[next].Value
	if winner != value {
		err = put(winner)
	}
	return winner == value, err
}

// History is the history of a channel in one place.
type History struct {
	Account string  `json:"account"`
	Region  string  `json:"region"`
	Entries []Entry `json:"history"`
}

// Histories returns the histories of a channel in all places that the distributor reaches that have it.
func (o *Distributor) Histories(ctx context.Context, parameter string) (all []History, err error) {
	found, err := o.histories(ctx, parameter)
	for at, entries := range found {
		all = append(all, History{at.ID, at.region, entries})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Account+all[i].Region < all[j].Account+all[j].Region })
	return all, err
}
