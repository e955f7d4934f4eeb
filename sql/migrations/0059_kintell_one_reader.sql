-- The reader takes any line break; what a file was recognized as is kept instead. A compressed or UTF-16 file is read
-- from a plain copy, whose offsets may lie past the size of the file as it was given.
alter table kintell.backfill_jobs
drop constraint checkpoint_in_file,
drop column line_break,
add column delimiter text not null default ',' check (char_length(delimiter) = 1),
add column recognized text not null default '',
add constraint checkpoint_not_before_file check (checkpoint_offset >= 0);

-- Rows that could not be split or decoded are those that are not replayable.
comment on column kintell.backfill_row_errors.row_values is
'The fields as they stood in the file; of a row that is not replayable, its whole text as the only one.';
