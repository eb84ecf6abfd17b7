package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

// awaits is the time limit of the program await.
const awaits = 5 * time.Minute

// await is the program "await LINE" of scripts: it waits until a line of sh succeeds, and fails
// after a time limit, so that scripts do not hang.
func await() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: await LINE")
		os.Exit(2)
	}
	for deadline := time.Now().Add(awaits); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command("sh", "-c", os.Args[1]).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "await: for %s, %s has not succeeded: %v: %s\n", awaits, os.Args[1], err, out)
			os.Exit(1)
		}
	}
}
