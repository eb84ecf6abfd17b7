# What may fail until a date, with the name of who answers for it. A waiver that has expired
# closes the gate again.
