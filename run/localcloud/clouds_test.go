package localcloud_test

import (
	"context"
	"testing"

	"bake/builder/amazon"
	"bake/run/localcloud"
)

// TestWaiting: clouds that wait keep their earlier restrictions.
func TestWaiting(t *testing.T) {
	held, waited := 0, 0
	c := &localcloud.Clouds{Hold: func(cloud amazon.Cloud) amazon.Cloud {
		held++
		cloud.Wait = func(context.Context, string, string) error { t.Error("it waits as before"); return nil }
		return cloud
	}}
	cloud, err := c.Waiting(func(context.Context, string, string) error { waited++; return nil }).Named(t.Context(), "")
	if err == nil {
		err = cloud.Wait(t.Context(), "ec2", "eu-west-1")
	}
	if err != nil || held != 1 || waited != 1 {
		t.Errorf("held %d times, waited %d times, %v", held, waited, err)
	}
}
