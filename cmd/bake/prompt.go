package main

import "bake/ui/prompt"

// newPrompter returns a prompter on the terminal that the program was started from, even
// if input and output are redirected. It returns nil if there is no terminal, or if the
// output is machine-readable.
func (p *program) newPrompter(suspend func() (resume func())) *prompt.Prompter {
	if p.machineReadable {
		return nil
	}
	tty, err := p.openTerminal()
	if err != nil {
		return nil
	}
	return prompt.New(tty, suspend)
}
