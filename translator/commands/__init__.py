"""The commands of the command line, a file each. They import what does the work only when they run."""
