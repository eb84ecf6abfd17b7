package ebs_test

import (
	"testing"

	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
	"bake/cloud/ec2"
	"bake/config/schema"
)

const region = amazontest.Region

type (
	world = amazontest.World
	bake  = amazontest.Bake
	call  = amazontest.Call
)

func newWorld(t testing.TB, rules ...ec2.Fault) *world {
	return amazontest.NewWorld(t, ebs.Factory, rules...)
}

func input(body string) schema.Input { return amazontest.Input(body) }
func plain(more string) string       { return amazontest.Plain(more) }
func tally(calls []call) string      { return amazontest.Tally(calls) }
