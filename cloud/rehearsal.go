package cloud

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// Rehearsal is how the cloud shall differ from one that is instant and never
// fails. Its file is JSON:
//
//	{
//	  "delays": "aws",
//	  "faults": {
//	    "seed": 1,
//	    "rules": [
//	      {"action": "RunInstances", "calls": 2, "code": "InsufficientInstanceCapacity"},
//	      {"probability": 0.05, "code": "RequestLimitExceeded"},
//	      {"action": "CopyImage", "region": "eu-west-1", "effect": "fail", "message": "Copy failed"},
//	      {"action": "CreateImage", "effect": "hide", "times": 3}
//	    ]
//	  }
//	}
//
// See [Delays], a profile's name or an object such as {"copy": "2m"}, and
// [Fault].
type Rehearsal struct {
	Delays Delays  `json:"delays"`
	Faults *Faults `json:"faults"`
}

// LoadRehearsal reads a file.
func LoadRehearsal(name string) (Rehearsal, error) {
	var r Rehearsal
	data, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}
