package device

import (
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

// Permissions returns the needs for the volumes of an instance or an image in a place.
func Permissions(src *schema.Source, here policy.Place, mappings []*Mapping) (needs []policy.Need) {
	for _, m := range mappings {
		key := m.KMSKeyID
		if !src.Known(&m.KMSKeyID) {
			key = "*"
		}
		needs = append(needs, here.Keys(key)...)
	}
	return needs
}

// Snapshots returns the snapshots from which mappings make volumes, as resources of EC2.
func Snapshots(src *schema.Source, mappings []*Mapping) (all []string) {
	for _, m := range mappings {
		if !src.Known(&m.SnapshotID) {
			all = append(all, "snapshot")
		} else if m.SnapshotID != "" {
			all = append(all, "snapshot/"+m.SnapshotID)
		}
	}
	return all
}
