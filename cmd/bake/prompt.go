package main

import "bake/ui/prompt"

// newPrompter returns a prompter that asks on the terminal which the program was
// started from, wherever its input and output go. It returns nil if there is
// none, and when the display is for programs.
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
