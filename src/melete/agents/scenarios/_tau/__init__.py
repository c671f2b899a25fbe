"""What tau-bench's two shops share: tables with a journal, tasks with their gold actions, a scripted person."""
